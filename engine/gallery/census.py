"""Statistics of a gallery: numbers of images, and the space that they take."""

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
    """Counts and sizes.

    Attributes:
        stored_bytes: of all the gallery's files.
        free_bytes: of them, what images that were removed have left, for `compact` to give back.
        changed: when a file of the gallery was last written.
    """

    images: int
    shards: int
    stored_bytes: int
    free_bytes: int
    changed: datetime


def count(path: Path, info: GalleryInfo) -> Census:
    """Count what is there, without reading features.

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
    """Bytes; none of a log that its last reader has just taken away."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
