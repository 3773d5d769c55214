"""`gallery merge`: galleries of one model into one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cvnet_engine import console
from cvnet_engine.commands.gallery.copied import counts, require_whole, to_json
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.census import count
from cvnet_engine.engine.gallery.info import INFO, GalleryInfo, read_info
from cvnet_engine.engine.gallery.learnt_codec import LearntCodec
from cvnet_engine.engine.gallery.merging import Merge, merge, require_one_making
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.outputs import Files, within


@dataclass(frozen=True)
class Options:
    """Galleries to take images from, in that order, and the one that they are added to."""

    sources: list[Path]
    gallery: Path
    json: Path | None = None

    @property
    def files(self) -> Files:
        return Files({"--json": self.json}, kept=[*self.sources, self.gallery])


def run(options: Options) -> None:
    options.files.require_apart()
    infos = making(options)
    report = Merge()
    images = sum(count(source, infos[source]).images for source in options.sources)
    try:
        with GalleryWriter(options.gallery, replace(infos[options.gallery], code="")) as writer:
            if writer.repairs:
                console.warn(f"{options.gallery}: {', '.join(writer.repairs)}")
            if writer.is_unlearnt:
                first = infos[options.sources[0]]
                writer.keep_maps_by(LearntCodec.load(options.sources[0], first.code), first.fidelity)
            with console.progress("merging", images) as advance:
                for source in options.sources:
                    merge(source, infos[source], writer, report, advance)
            total = len(writer)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("what was copied is stored: run the same command again to go on") from error
    console.say(f"{options.gallery}: {counts(report)}, {total} images now")
    if options.json:
        console.write_json(options.json, to_json(options.gallery, report) | {"images": total})
    require_whole(report, "or index them into the merged one")


def making(options: Options) -> dict[Path, GalleryInfo]:
    """What made each gallery; a new one is made as the first source was.

    Raises:
        GalleryError: they differ, or the gallery is one of its own sources.
    """
    for source in options.sources:
        if within(source, options.gallery) or within(options.gallery, source):
            raise GalleryError(f"{source}: cannot be merged with itself; give --gallery another folder")
    infos = {source: read_info(source) for source in options.sources}
    exists = (options.gallery / INFO).exists()
    infos[options.gallery] = read_info(options.gallery) if exists else infos[options.sources[0]]
    require_one_making(infos)
    return infos
