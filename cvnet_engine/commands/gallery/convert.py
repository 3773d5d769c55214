"""`gallery convert`: a gallery whose maps are kept in another way, in less space."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rich.filesize import decimal

from cvnet_engine import console
from cvnet_engine.commands.gallery.copied import counts, require_whole, to_json
from cvnet_engine.outputs import Files, within
from engine.errors import GalleryError
from engine.gallery.census import count
from engine.gallery.converting import convert
from engine.gallery.info import read_info
from engine.gallery.map_codec import kind_wanted
from engine.gallery.merging import Merge
from engine.gallery.writer import GalleryWriter


@dataclass(frozen=True)
class Options:
    """The gallery to take images from, the one that they are added to, and how that keeps maps."""

    source: Path
    gallery: Path
    maps: str
    json: Path | None = None

    @property
    def files(self) -> Files:
        return Files({"--json": self.json}, kept=[self.source, self.gallery])


def run(options: Options) -> None:
    options.files.require_apart()
    if within(options.source, options.gallery) or within(options.gallery, options.source):
        raise GalleryError(f"{options.source}: cannot be converted in its place; give --gallery another folder")
    info = read_info(options.source)
    wanted = replace(info, maps=kind_wanted(options.maps), code="", shards=0)
    before, report = count(options.source, info), Merge()
    try:
        with GalleryWriter(options.gallery, wanted) as writer:
            with console.progress("converting", before.images) as advance:
                convert(options.source, info, writer, report, advance)
            made = writer.info
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("what was copied is stored: run the same command again to go on") from error
    after = count(options.gallery, made)
    console.say(
        f"{options.gallery}: {counts(report)}; {decimal(after.stored_bytes)}, "
        f"{options.source} has {decimal(before.stored_bytes)}"
    )
    if options.json:
        sizes = {"bytes": after.stored_bytes, "bytes_before": before.stored_bytes}
        console.write_json(options.json, to_json(options.gallery, report) | {"maps": made.maps} | sizes)
    require_whole(report, "and convert it again")
