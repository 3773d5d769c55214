"""`gallery list`: the images of a gallery."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from cvnet_engine import console
from cvnet_engine.commands.gallery.options import GalleryOptions
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.selection import select


@dataclass(frozen=True, kw_only=True)
class Options(GalleryOptions):
    """Which gallery, and which of its images, as `select` takes them; all where empty."""

    only: list[str]


def run(options: Options) -> None:
    options.files.require_apart()
    with Gallery(options.gallery) as gallery:
        paths = select(gallery.paths, options.only) if options.only else gallery.paths
        if not options.json:
            console.emit("".join(f"{path}\n" for path in paths))
            return
        chosen = set(paths)
        entries = [
            {"path": str(path), **asdict(gallery.stamp(row)), "map_size": gallery.map_size(row)}
            for row, path in enumerate(gallery.paths)
            if path in chosen
        ]
    console.write_json(options.json, entries)
