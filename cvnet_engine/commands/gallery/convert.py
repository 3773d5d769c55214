"""`gallery convert`: a gallery whose maps are kept in another way, in less space."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.filesize import decimal

from cvnet_engine import console
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
        f"{options.gallery}: {report.added} added, {report.updated} updated, {report.unchanged} unchanged; "
        f"{decimal(after.stored_bytes)}, {options.source} has {decimal(before.stored_bytes)}"
    )
    if options.json:
        damaged = {str(path): reason for path, reason in report.damaged.items()}
        content = {"gallery": str(options.gallery), **asdict(report), "damaged": damaged, "maps": made.maps}
        console.write_json(options.json, content | {"bytes": after.stored_bytes, "bytes_before": before.stored_bytes})
    if report.damaged:
        path, reason = next(iter(report.damaged.items()))
        raise GalleryError(
            f"{len(report.damaged)} damaged images were left out ({path}: {reason}); mend their gallery with "
            "'cvnet-engine index', and convert it again"
        )
