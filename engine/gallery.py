"""A gallery: a folder of SQLite shards that keeps every image's features, so that they are computed once.

    GALLERY/gallery.json       what made it: the model and the image size limit
    GALLERY/shard-00000.sqlite one row an image in `images`, one row a map in `maps`
    GALLERY/writer.lock        held by the one writer

An image is committed in one transaction and synced to disk before the next one; a kill at any moment costs
the image in flight and nothing else. Readers may read while the writer writes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from engine.errors import GalleryError, one_line
from engine.features import Features
from engine.files import rename, write_atomically
from engine.map_codec import MAP_TYPES, decode_map, encode_map
from engine.session import Array

FORMAT = 1
INFO = "gallery.json"
IMAGES_PER_SHARD = 4096  # about 10 GiB at 1024x768 px
PAGE_BYTES = 65536  # a map is hundreds of KiB: large pages mean fewer of them
READER_BYTES = 65536  # what a reader may write beside a shard, with room to spare
MAPS = 3  # of an image, one for each area scale

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
    data BLOB NOT NULL,             -- (channels, height, width), see engine.map_codec
    checksum INTEGER NOT NULL,      -- of every other column
    PRIMARY KEY (image, scale)
) WITHOUT ROWID;
"""
SELECT_IMAGES = "SELECT id, path, height, width, descriptor, checksum FROM images ORDER BY id"
SELECT_MAPS = "SELECT image, scale, channels, height, width, data, checksum FROM maps WHERE image = ? ORDER BY scale"


@dataclass(frozen=True)
class GalleryInfo:
    """What a gallery's features were made with; only equal ones can be mixed.

    `features_id` is `Manifest.features_id`, `max_side_px` the limit on an image's longer side before extraction,
    `maps` one of `MAP_TYPES`.
    """

    format: int
    features_id: str
    weights: str
    max_side_px: int | None
    maps: str = "float16"


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


class Gallery:
    """A gallery opened for reading: a snapshot of the images committed by then.

    Rows are numbered 0..n-1 in the order in which the images were indexed.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            GalleryError: no gallery there, another format, or damage.
        """
        self.path = path
        self.info = read_info(path)
        self._shards = [connect(file, readonly=True) for file in shard_files(path)]
        self.paths: list[Path] = []
        self._locations: list[Location] = []
        self._map_sizes: list[tuple[int, int]] = []
        descriptors = []
        for shard, connection in enumerate(self._shards):
            with translated_errors(path):
                for *columns, stored in connection.execute(SELECT_IMAGES):
                    require_undamaged(columns, stored, path)
                    id_, name, height, width, descriptor = columns
                    self.paths.append(Path(os.fsdecode(name)))
                    self._locations.append(Location(shard, id_))
                    self._map_sizes.append((height, width))
                    descriptors.append(np.frombuffer(descriptor, np.float32))
        self.descriptors: Array = np.stack(descriptors) if descriptors else np.empty((0, 2048), np.float32)

    def __len__(self) -> int:
        return len(self.paths)

    def map_size(self, row: int) -> tuple[int, int]:
        """Positions (h, w) of the row's full-scale map."""
        return self._map_sizes[row]

    def features(self, row: int) -> Features:
        """The row's features, maps as `decode_map` gives them.

        Raises:
            GalleryError: the stored bytes are damaged.
        """
        location = self._locations[row]
        with translated_errors(self.path):
            stored_maps = self._shards[location.shard].execute(SELECT_MAPS, (location.id,)).fetchall()
        if len(stored_maps) != MAPS:
            raise GalleryError(damage(self.paths[row]))
        for *columns, stored in stored_maps:
            require_undamaged(columns, stored, self.paths[row])
        return Features(
            self.descriptors[row],
            tuple(decode_map(data, (c, h, w), self.info.maps) for _, _, c, h, w, data, _ in stored_maps),
        )

    def close(self) -> None:
        for connection in self._shards:
            connection.close()


class GalleryWriter:
    """A gallery opened for adding images, by one process at a time. A context manager."""

    def __init__(self, path: Path, info: GalleryInfo, images_per_shard: int = IMAGES_PER_SHARD) -> None:
        """Open the gallery, or start it.

        Raises:
            GalleryError: another writer holds it, or it was made with something else than `info`.
        """
        self.path, self.info = path, info
        self._images_per_shard = images_per_shard
        with translated_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / "writer.lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise GalleryError(
                f"{path}: another process is writing to this gallery; wait for it, or stop it"
            ) from error
        try:
            self._start()
        except BaseException:
            self._lock.close()
            raise

    def _start(self) -> None:
        if (self.path / INFO).exists():
            require_equal(read_info(self.path), self.info, self.path)
        else:
            with translated_errors(self.path):
                write_atomically(self.path / INFO, json.dumps(asdict(self.info), indent=2) + "\n")
        self._shards = [connect(file) for file in shard_files(self.path)]
        self._known: dict[Path, tuple[Location, FileStamp]] = {}
        for shard, connection in enumerate(self._shards):
            with translated_errors(self.path):
                for id_, name, *stamp in connection.execute("SELECT id, path, size, mtime_ns, digest FROM images"):
                    self._known[Path(os.fsdecode(name))] = Location(shard, id_), FileStamp(*stamp)

    def __len__(self) -> int:
        return len(self._known)

    def stamp(self, path: Path) -> FileStamp | None:
        """What the file looked like when it was indexed, None for a new one."""
        return self._known[path][1] if path in self._known else None

    def put(self, path: Path, stamp: FileStamp, features: Features) -> None:
        """Add an image, or replace what is known of it; on return it is on the disk.

        Raises:
            GalleryError: the disk is full, or the gallery damaged; what was stored before still is.
        """
        name, descriptor = os.fsencode(path), features.descriptor.astype(np.float32).tobytes()
        with translated_errors(self.path):
            location = self._known[path][0] if path in self._known else self._next_location()
        with translated_errors(self.path), self._shards[location.shard] as transaction:
            transaction.execute("DELETE FROM maps WHERE image = ?", (location.id,))
            transaction.execute(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    location.id,
                    name,
                    stamp.size,
                    stamp.mtime_ns,
                    stamp.digest,
                    *features.map_size,
                    descriptor,
                    checksum(location.id, name, *features.map_size, descriptor),
                ),
            )
            for scale, array in enumerate(features.maps):
                row = (location.id, scale, *array.shape, encode_map(array, self.info.maps))
                transaction.execute("INSERT INTO maps VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, checksum(*row)))
        self._known[path] = location, stamp

    def touch(self, path: Path, stamp: FileStamp) -> None:
        """Record a new modification time of a file whose content is as it was."""
        location = self._known[path][0]
        with translated_errors(self.path), self._shards[location.shard] as transaction:
            transaction.execute("UPDATE images SET mtime_ns = ? WHERE id = ?", (stamp.mtime_ns, location.id))
        self._known[path] = location, stamp

    def _next_location(self) -> Location:
        """The next free row, in a new shard where the last one is full."""
        if self._shards:
            (last_id,) = self._shards[-1].execute("SELECT coalesce(max(id), -1) FROM images").fetchone()
            if last_id + 1 < self._images_per_shard:
                return Location(len(self._shards) - 1, last_id + 1)
        self._shards.append(create_shard(self.path / f"shard-{len(self._shards):05d}.sqlite"))
        return Location(len(self._shards) - 1, 0)

    def close(self) -> None:
        for connection in self._shards:
            connection.close()
        self._lock.close()

    def __enter__(self) -> GalleryWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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


def read_info(path: Path) -> GalleryInfo:
    file = path / INFO
    try:
        content = json.loads(file.read_text())
        if content["format"] != FORMAT:
            raise GalleryError(
                f"{path}: gallery of format {content['format']}; expected {FORMAT}: index the images again"
            )
        info = GalleryInfo(**content)
        if info.maps not in MAP_TYPES:
            raise ValueError(f"maps {info.maps!r}")
        return info
    except (FileNotFoundError, NotADirectoryError) as error:
        raise GalleryError(f"{path}: not a gallery (no {INFO}); make one with 'cvnet-engine index'") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise GalleryError(f"{file}: not readable ({error}); expected a gallery of format {FORMAT}") from error


def map_type_of(path: Path) -> str:
    """One of `MAP_TYPES`: that of a gallery which is there, the default for a new one."""
    return read_info(path).maps if (path / INFO).exists() else MAP_TYPES[0]


def require_equal(gallery: GalleryInfo, wanted: GalleryInfo, path: Path) -> None:
    """Raise GalleryError where features of `wanted` would not belong beside the gallery's."""
    if gallery.features_id != wanted.features_id:
        raise GalleryError(
            f"{path}: made with another model ({gallery.weights}, {gallery.features_id[:12]}); the bundle has "
            f"{wanted.weights}, {wanted.features_id[:12]}: use the bundle it was made with, or another --gallery"
        )
    if gallery.max_side_px != wanted.max_side_px:
        raise GalleryError(
            f"{path}: made with --max-side {gallery.max_side_px or 0}; got {wanted.max_side_px or 0}: "
            "use the same, or another --gallery"
        )
    if gallery.maps != wanted.maps:
        raise GalleryError(f"{path}: keeps maps as {gallery.maps}; got --maps {wanted.maps}: use another --gallery")


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
