"""`gallery remove`, `prune` and `compact`: images out of a gallery, and their disk space returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.filesize import decimal

from cvnet_engine import console
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.census import count
from cvnet_engine.engine.gallery.filter import select
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.vanished import Vanished, vanished
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.options import CompactOptions, PruneOptions, RemoveOptions

LISTED = 20  # images shown; all of them are in the JSON


def remove(options: RemoveOptions) -> None:
    chosen, left = remove_chosen(options.gallery, lambda paths: select(paths, options.images), options.dry_run)
    if options.json:
        console.write_json(options.json, to_json(options.gallery, chosen, left, options.dry_run))


def prune(options: PruneOptions) -> None:
    found: list[Vanished] = []

    def choose(paths: Sequence[Path]) -> list[Path]:
        found.append(vanished(paths))
        doubtful = {path for gone in found[0].doubtful.values() for path in gone} if options.force else set()
        deleted = {*found[0].deleted, *doubtful}
        return [path for path in paths if path in deleted]

    chosen, left = remove_chosen(options.gallery, choose, options.dry_run)
    doubtful = {} if options.force else found[0].doubtful
    for path, reason in list(found[0].unknown.items())[:LISTED]:
        console.warn(f"  {path}: kept, because it cannot be checked ({reason})")
    if options.json:
        kept = {str(folder): len(paths) for folder, paths in doubtful.items()}
        unknown = {str(path): reason for path, reason in found[0].unknown.items()}
        content = to_json(options.gallery, chosen, left, options.dry_run)
        console.write_json(options.json, content | {"kept": kept, "unknown": unknown})
    if doubtful:
        raise GalleryError(
            f"{options.gallery}: kept {sum(map(len, doubtful.values()))} images, because everything in "
            f"{', '.join(map(str, doubtful))} is missing; mount that disk, or if the images were deleted, pass the "
            "folder to 'gallery remove', or use --force"
        )


def remove_chosen(path: Path, choose: Callable[[Sequence[Path]], list[Path]], dry_run: bool) -> tuple[list[Path], int]:
    """Remove the images that `choose` returns, or only list them. Returns them, and how many images are left."""
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


def compact(options: CompactOptions) -> None:
    with GalleryWriter.reopen(options.gallery) as writer:
        if writer.repairs:
            console.warn(f"{options.gallery}: {', '.join(writer.repairs)}")
        before = count(options.gallery, writer.info)
        with console.progress("compacting", before.shards) as advance:
            writer.compact(advance)
        info = writer.info
    after = count(options.gallery, info)
    console.say(
        f"{options.gallery}: {decimal(before.stored_bytes)} before, {decimal(after.stored_bytes)} now, "
        f"{after.images:,} images"
    )
    if before.stored_bytes - after.stored_bytes < before.free_bytes:
        console.warn("other programs have the gallery open; the rest is returned when the last one closes it")
    if options.json:
        content = {"gallery": str(options.gallery), "bytes_before": before.stored_bytes, "bytes": after.stored_bytes}
        console.write_json(options.json, content | {"images": after.images})
