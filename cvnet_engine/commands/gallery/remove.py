"""`gallery remove`: images out of a gallery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cvnet_engine import console
from cvnet_engine.commands.gallery.options import GalleryOptions
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.selection import select
from cvnet_engine.engine.gallery.writer import GalleryWriter

LISTED = 20  # images shown; all of them are in the JSON


@dataclass(frozen=True, kw_only=True)
class Options(GalleryOptions):
    """What to remove, as `select` takes it."""

    images: list[str]
    dry_run: bool = False


def run(options: Options) -> None:
    options.files.require_apart()
    chosen, left = remove_chosen(options.gallery, lambda paths: select(paths, options.images), options.dry_run)
    if options.json:
        console.write_json(options.json, to_json(options.gallery, chosen, left, options.dry_run))


def remove_chosen(path: Path, choose: Callable[[Sequence[Path]], list[Path]], dry_run: bool) -> tuple[list[Path], int]:
    """Take out those of a gallery's images that `choose` chooses, or only say which; they, and how many are left."""
    if dry_run:
        with Gallery(path) as gallery:
            chosen, left = choose(gallery.paths), len(gallery)
        console.say(f"{path}: {len(chosen)} of {console.counted(left, 'image')} would be removed")
        show(chosen)
        return chosen, left
    with GalleryWriter.reopen(path) as writer:
        if writer.repairs:
            console.warn(f"{path}: {', '.join(writer.repairs)}")
        chosen = choose(writer.paths)
        with console.progress("removing", len(chosen)) as advance:
            writer.remove(chosen, advance)
        left = len(writer)
    console.say(f"{path}: {console.counted(len(chosen), 'image')} removed, {left} left")
    show(chosen)
    return chosen, left


def show(paths: Sequence[Path]) -> None:
    for path in paths[:LISTED]:
        console.say(f"  {path}")
    if len(paths) > LISTED:
        console.say(f"  and {len(paths) - LISTED} more, all of them in --json")


def to_json(gallery: Path, chosen: Sequence[Path], left: int, dry_run: bool) -> dict[str, object]:
    return {"gallery": str(gallery), "removed": list(map(str, chosen)), "left": left, "dry_run": dry_run}
