"""Statistics of a gallery: number of images and disk space."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.shards import REPAIR, connect, shard_files, translated_errors


@dataclass(frozen=True)
class Census:
    """Statistics of a gallery.

    Attributes:
        stored_bytes: size of all files of the gallery.
        free_bytes: part of it that removed images have left unused; `compact` frees it.
        changed: time at which a shard was last written.
    """

    images: int
    shards: int
    stored_bytes: int
    free_bytes: int
    changed: datetime


def count(path: Path, info: GalleryInfo) -> Census:
    """Compute the statistics of a gallery without reading features.

    Raises:
        GalleryError: a shard is missing or cannot be read.
    """
    images = free_bytes = 0
    shards = shard_files(path, info.shards)
    for file in shards:
        if not file.exists():
            raise GalleryError(f"{file}: missing from the gallery; {REPAIR}")
        with contextlib.closing(connect(file, readonly=True)) as shard, translated_errors(file):
            images += shard.execute("SELECT count(*) FROM images").fetchone()[0]
            (pages,), (page_bytes,) = (
                shard.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_size")
            )
            free_bytes += pages * page_bytes
    written = [file.stat().st_mtime for file in shards] or [path.stat().st_mtime]
    changed = datetime.fromtimestamp(max(written), UTC)
    return Census(images, len(shards), sum(map(size, path.iterdir())), free_bytes, changed)


def size(file: Path) -> int:
    """Return the size of a file in bytes; 0 if it is gone, because SQLite's last reader deletes its log."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
