"""`gallery remove`, `prune` and `compact`: removal of images, and return of their disk space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.filesize import decimal

from cvnet_engine import console
from cvnet_engine.engine.errors import GalleryError, counted
from cvnet_engine.engine.gallery.filter import select
from cvnet_engine.engine.gallery.inspection import MissingFiles, find_missing, read_statistics
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.options import CompactOptions, PruneOptions, RemoveOptions

LISTED = 20  # images shown


def remove(options: RemoveOptions) -> None:
    remove_chosen(options.gallery, lambda paths: select(paths, options.images))


def prune(options: PruneOptions) -> None:
    found: list[MissingFiles] = []

    def choose(paths: Sequence[Path]) -> list[Path]:
        found.append(find_missing(paths))
        deleted = set(found[0].deleted)
        return [path for path in paths if path in deleted]

    if options.dry_run:
        with Gallery(options.gallery) as gallery:
            chosen, images = choose(gallery.paths), counted(len(gallery), "image")
        console.say(f"{options.gallery}: {len(chosen)} of {images} would be removed")
        show(chosen)
    else:
        remove_chosen(options.gallery, choose)
    for path, reason in list(found[0].unknown.items())[:LISTED]:
        console.warn(f"  {path}: kept, because it cannot be checked ({reason})")
    if doubtful := found[0].doubtful:
        raise GalleryError(
            f"{options.gallery}: kept {counted(sum(map(len, doubtful.values())), 'image')}, because everything in "
            f"{', '.join(map(str, doubtful))} is missing; mount that disk, or if the images were deleted, pass the "
            "folder to 'gallery remove'"
        )


def remove_chosen(path: Path, choose: Callable[[Sequence[Path]], list[Path]]) -> None:
    """Remove the images that `choose` returns."""
    with GalleryWriter.reopen(path) as writer:
        console.warn_of_repairs(writer)
        chosen = choose(writer.paths)
        with console.progress("removing", len(chosen)) as advance:
            writer.remove(chosen, advance)
        left = len(writer)
    console.say(f"{path}: {counted(len(chosen), 'image')} removed, {left} left")
    show(chosen)


def show(paths: Sequence[Path]) -> None:
    for path in paths[:LISTED]:
        console.say(f"  {path}")
    if len(paths) > LISTED:
        console.say(f"  and {len(paths) - LISTED} more")


def compact(options: CompactOptions) -> None:
    with GalleryWriter.reopen(options.gallery) as writer:
        console.warn_of_repairs(writer)
        before = read_statistics(options.gallery, writer.info)
        with console.progress("compacting", before.shards) as advance:
            writer.compact(advance)
        info = writer.info
    after = read_statistics(options.gallery, info)
    console.say(
        f"{options.gallery}: {decimal(before.stored_bytes)} before, {decimal(after.stored_bytes)} now, "
        f"{counted(after.images, 'image')}"
    )
    if before.stored_bytes - after.stored_bytes < before.free_bytes:
        console.warn("other programs have the gallery open; the rest is returned when the last one closes it")
