"""One file of a gallery: an SQLite database of images and their maps, each row with its checksum."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import GalleryError, one_line
from engine.files import rename

PAGE_BYTES = 65536  # a map is hundreds of KiB: large pages mean fewer of them
READER_BYTES = 65536  # what a reader may write beside a shard, with room to spare

SCHEMA = """
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,      -- absolute, in the file system's own encoding
    size INTEGER NOT NULL,          -- bytes
    mtime_ns INTEGER NOT NULL,
    digest TEXT NOT NULL,           -- SHA-256 of the file
    height INTEGER NOT NULL,        -- positions of the full-scale map
    width INTEGER NOT NULL,
    descriptor BLOB NOT NULL,       -- (2048,) float32
    checksum INTEGER NOT NULL       -- of id, path, height, width, descriptor; see checksum()
);
CREATE TABLE maps (
    image INTEGER NOT NULL REFERENCES images(id),
    scale INTEGER NOT NULL,         -- 0, 1, 2 for area scales 0.25, 0.5, 1
    channels INTEGER NOT NULL,
    height INTEGER NOT NULL,
    width INTEGER NOT NULL,
    data BLOB NOT NULL,             -- (channels, height, width), see engine.gallery.map_codec
    checksum INTEGER NOT NULL,      -- of every other column
    PRIMARY KEY (image, scale)
) WITHOUT ROWID;
"""
SELECT_IMAGES = "SELECT id, path, height, width, descriptor, checksum FROM images ORDER BY id"
SELECT_STAMPS = "SELECT id, path, size, mtime_ns, digest FROM images"
SELECT_STAMP = "SELECT size, mtime_ns, digest FROM images WHERE id = ? AND path = ?"
SELECT_MAPS = "SELECT image, scale, channels, height, width, data, checksum FROM maps WHERE image = ? ORDER BY scale"


@dataclass(frozen=True)
class FileStamp:
    """What tells whether a file has changed: bytes, modification time, SHA-256."""

    size: int
    mtime_ns: int
    digest: str


@dataclass(frozen=True)
class Location:
    """Where an image's row is."""

    shard: int
    id: int


def shard_files(path: Path) -> list[Path]:
    return sorted(path.glob("shard-*.sqlite"))


def create_shard(file: Path) -> sqlite3.Connection:
    """A new shard; it gets its name once its tables are there, so a kill leaves no shard without them."""
    unfinished = file.with_suffix(".new")
    with translated_errors(file):
        unfinished.unlink(missing_ok=True)
        connection = sqlite3.connect(unfinished)
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.executescript(SCHEMA)
        connection.close()
        rename(unfinished, file)
    return connect(file)


def connect(file: Path, readonly: bool = False) -> sqlite3.Connection:
    """A shard opened; `synchronous = FULL` makes a commit wait for the disk."""
    with translated_errors(file):
        if not readonly:
            connection = sqlite3.connect(file, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            return connection
        # A reader of a WAL shard writes an index beside it; where it cannot, the shard must be one that nobody changes.
        log = Path(f"{file}-wal")
        logged = log.exists() and log.stat().st_size > 0
        locked = not os.access(file.parent, os.W_OK)
        fixed = locked or (not logged and shutil.disk_usage(file.parent).free < READER_BYTES)
        if locked and logged:
            raise GalleryError(
                f"{file}: its last writer was killed and the folder is read-only; open it once where it is writable"
            )
        uri = f"{file.absolute().as_uri()}?mode=ro{'&immutable=1' if fixed else ''}"
        return sqlite3.connect(uri, uri=True, check_same_thread=False)


def checksum(*columns: int | bytes) -> int:
    """CRC-32 of a row's columns."""
    crc = 0
    for column in columns:
        crc = zlib.crc32(column if isinstance(column, bytes) else f"{column} ".encode(), crc)
    return crc


def require_undamaged(columns: Sequence[Any], stored: Any, what: Path) -> None:
    """Raise GalleryError where columns as read differ from those that `stored` was computed from."""
    if checksum(*columns) != stored:
        raise GalleryError(damage(what))


def damage(what: Path) -> str:
    return f"{what}: features damaged in the gallery (checksum differs); index the images into a new gallery"


@contextlib.contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """SQLite's and the system's errors as GalleryError."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:  # the last where SQLite's own messages are damaged
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in (
            errno.ENOSPC,
            errno.EDQUOT,
        )
        remedy = (
            "free some space and run the same command again; what was stored is kept"
            if full
            else "check the folder and its disk"
        )
        raise GalleryError(f"{path}: gallery not accessible ({one_line(error)}); {remedy}") from error
