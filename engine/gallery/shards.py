"""Shards of a gallery: SQLite databases of images and their feature maps, with a checksum per row."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cvnet_engine.engine.contract import Array, Closing
from cvnet_engine.engine.errors import GalleryError, one_line
from cvnet_engine.engine.exif import Shot
from cvnet_engine.engine.features import is_finite
from cvnet_engine.engine.files import rename, require_regular
from cvnet_engine.engine.gallery.map_codecs import Decode
from cvnet_engine.engine.geometry import AREA_SCALES, DESCRIPTOR_DIM, MAP_DIM, Size, unit_map_sizes

REPAIR = "run 'cvnet-engine index' with the gallery's images again to restore what is damaged or missing"
PAGE_BYTES = 65536  # a float16 map takes hundreds of KiB
CODED_PAGE_BYTES = 4096  # a compressed map takes tens of KiB; the unused rest of large pages would double that
READER_BYTES = 65536  # free space that a reader needs for SQLite's WAL index, generously
MOST_CONNECTIONS = 64  # kept open; each takes three of the process's file descriptors, often limited to 1024

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
    data BLOB NOT NULL,             -- (channels, height, width), see engine.gallery.map_codecs
    checksum INTEGER NOT NULL,      -- of every other column
    PRIMARY KEY (image, scale)
) WITHOUT ROWID;
CREATE INDEX maps_images ON maps (image, scale);  -- which maps are there, without reading past them
CREATE TABLE contents (images INTEGER NOT NULL);  -- one row: how many there should be
CREATE TABLE state (number INTEGER NOT NULL);     -- one row: see mark_changed()
INSERT INTO contents VALUES (0);
INSERT INTO state VALUES (random());
CREATE TABLE taken (                -- EXIF date and place, one row for each image whose EXIF metadata was read
    image INTEGER PRIMARY KEY REFERENCES images(id),
    taken INTEGER,                  -- see engine.exif.Shot
    latitude REAL,
    longitude REAL,
    checksum INTEGER NOT NULL       -- of every other column
);
"""
IMAGE_TABLES = ("maps", "taken")  # tables that refer to an image: first column `image`, last column `checksum`
IMAGE_COLUMNS = "id, path, height, width, descriptor, checksum, size, mtime_ns, digest"
SELECT_IMAGES = f"SELECT {IMAGE_COLUMNS} FROM images ORDER BY id"
SELECT_IMAGE = f"SELECT {IMAGE_COLUMNS} FROM images WHERE id = ?"
SELECT_STAMP = "SELECT size, mtime_ns, digest FROM images WHERE id = ? AND path = ?"
SELECT_MAPS = "SELECT image, scale, channels, height, width, data, checksum FROM maps WHERE image = ? ORDER BY scale"
SELECT_COUNT = "SELECT CAST(coalesce(max(images), 0) AS INTEGER) FROM contents"
SELECT_STATE = "SELECT CAST(coalesce(max(number), 0) AS INTEGER) FROM state"
SELECT_EXIF = "SELECT image, taken, latitude, longitude, checksum FROM taken"
# images that have all their maps
SELECT_COMPLETE = f"SELECT image FROM maps GROUP BY image HAVING count(*) = {len(AREA_SCALES)}"
BROKEN = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)  # no tables, damage, no database
UNIT_TOLERANCE = 1e-3  # of a descriptor's squared norm
TEMPORARY = "SQLITE_TMPDIR"
DAMAGED = "damaged"  # marker file that a reader creates on damage; makes the next writer check every row and map

ImageRows = Mapping[str, Sequence[Sequence[Any]]]  # `IMAGE_TABLES` -> rows of one image without `image`, `checksum`


@dataclass(frozen=True)
class FileStamp:
    """Size in bytes, modification time and SHA-256 of a file, to detect changes."""

    size: int
    mtime_ns: int
    digest: str

    def fits(self, status: os.stat_result) -> bool:
        """Return True if size and modification time are unchanged."""
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)


@dataclass(frozen=True)
class Location:
    """Shard number and row id of an image."""

    shard: int
    id: int


@dataclass(frozen=True)
class StoredImage:
    """A row of table `images`.

    Attributes:
        map_size: positions (h, w) of the full-scale map.
        descriptor: (2048,) float32, unit norm.
    """

    id: int
    path: Path
    map_size: Size
    descriptor: Array
    stamp: FileStamp

    @property
    def name(self) -> bytes:
        """The path in the file system's encoding, as stored."""
        return os.fsencode(self.path)

    @property
    def checksum(self) -> int:
        """CRC-32 of the row without the file's stamp."""
        return checksum(self.id, self.name, *self.map_size, self.descriptor.tobytes())


@dataclass(frozen=True)
class Contents:
    """Number of images that a shard should hold, and its state: a random number that every change replaces."""

    images: int
    state: int


def read_contents(shard: sqlite3.Connection) -> Contents:
    (images,) = shard.execute(SELECT_COUNT).fetchone()
    (state,) = shard.execute(SELECT_STATE).fetchone()
    return Contents(images, state)


def mark_changed(transaction: sqlite3.Connection) -> None:
    """Give the shard a new state, which makes caches of it stale.

    Call it in every transaction that adds, replaces or removes images.
    """
    transaction.execute("DELETE FROM state")
    transaction.execute("INSERT INTO state VALUES (random())")


def parse_image(columns: Sequence[Any]) -> StoredImage:
    """Parse a row of `SELECT_IMAGES`.

    Raises:
        ValueError: the row is damaged.
    """
    id_, name, height, width, data, stored, *stamp = columns
    descriptor = parse_descriptor(id_, name, height, width, data, stored)
    return StoredImage(id_, Path(os.fsdecode(name)), (height, width), descriptor, FileStamp(*stamp))


def parse_descriptor(id_: Any, name: Any, height: Any, width: Any, data: Any, stored: Any) -> Array:
    """Return the descriptor (2048,) float32 of a row of `images`, after checking the row against its checksum.

    Raises:
        ValueError: the row is damaged.
    """
    if checksum(id_, name, height, width, data) != stored:
        raise ValueError("checksum differs")
    sizes_fit = isinstance(height, int) and isinstance(width, int) and min(height, width) > 1
    if not (sizes_fit and isinstance(name, bytes) and b"\0" not in name and isinstance(data, bytes)):
        raise ValueError("invalid path or size")
    descriptor = np.frombuffer(data, np.float32)
    with np.errstate(over="ignore"):
        is_unit = abs(descriptor @ descriptor - 1) < UNIT_TOLERANCE
    if descriptor.shape != (DESCRIPTOR_DIM,) or not is_unit:
        raise ValueError("descriptor without unit length")
    return descriptor


def read_image(shard: sqlite3.Connection, id_: int) -> StoredImage | None:
    """Read a row of `images`; return None if it does not exist.

    Raises:
        ValueError: the row is damaged.
    """
    columns = shard.execute(SELECT_IMAGE, (id_,)).fetchone()
    return parse_image(columns) if columns else None


def read_maps(shard: sqlite3.Connection, id_: int, map_size: Size, decode: Decode) -> tuple[Array, ...]:
    """Read the maps of an image, one array per scale, as `decode` returns them.

    Raises:
        ValueError: maps are missing or damaged.
    """
    return parse_maps(shard.execute(SELECT_MAPS, (id_,)).fetchall(), id_, map_size, decode)


def parse_maps(rows: Sequence[tuple[Any, ...]], id_: int, map_size: Size, decode: Decode) -> tuple[Array, ...]:
    """Decode an image's rows of table `maps`, in ascending order of scale.

    Raises:
        ValueError: maps are missing or damaged.
    """
    expected = [(id_, scale, MAP_DIM, *size) for scale, size in enumerate(unit_map_sizes(map_size))]
    if [row[:5] for row in rows] != expected:
        raise ValueError("maps missing or of wrong size")
    maps = []
    for *columns, stored in rows:
        if checksum(*columns) != stored:
            raise ValueError("checksum differs")
        _, scale, _, height, width, data = columns
        if not isinstance(data, bytes):
            raise ValueError("map without binary data")
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            maps.append(decode(scale, data, height, width))
    if not all(map(is_finite, maps)):
        raise ValueError("maps with values that are not finite")
    return tuple(maps)


def insert_image(shard: sqlite3.Connection, image: StoredImage) -> None:
    """Insert or replace a row of `images`."""
    columns = image.id, image.name, *astuple(image.stamp), *image.map_size, image.descriptor.tobytes(), image.checksum
    shard.execute("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", columns)


def insert_rows(shard: sqlite3.Connection, id_: int, rows: ImageRows) -> None:
    """Replace all rows of an image in the tables of `IMAGE_TABLES`."""
    delete_rows(shard, [id_])
    for table, of_table in rows.items():
        for columns in of_table:
            row = (id_, *columns)
            shard.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * (len(row) + 1))})", (*row, checksum(*row)))


def delete_rows(shard: sqlite3.Connection, ids: Sequence[int]) -> None:
    for table in IMAGE_TABLES:
        shard.executemany(f"DELETE FROM {table} WHERE image = ?", [(id_,) for id_ in ids])


def delete_images(shard: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Delete images and all their rows."""
    delete_rows(shard, ids)
    shard.executemany("DELETE FROM images WHERE id = ?", [(id_,) for id_ in ids])


def delete_orphans(shard: sqlite3.Connection) -> None:
    """Delete rows that refer to images that do not exist."""
    for table in IMAGE_TABLES:
        shard.execute(f"DELETE FROM {table} WHERE image NOT IN (SELECT id FROM images)")


def read_exif(shard: sqlite3.Connection) -> dict[int, Shot]:
    """Read date and place of all images of a shard, by image id; damaged rows count as missing."""
    return {row[0]: exif for row in shard.execute(SELECT_EXIF) if (exif := parse_exif(*row))}


def has_exif(shard: sqlite3.Connection, id_: int) -> bool:
    """Return True if the EXIF metadata of an image is stored."""
    row = shard.execute(f"{SELECT_EXIF} WHERE image = ?", (id_,)).fetchone()
    return bool(row and parse_exif(*row))


def parse_exif(image: Any, taken: Any, latitude: Any, longitude: Any, stored: Any) -> Shot | None:
    """Parse a row of `taken`; return None if it is damaged, or has types that `exif_row` does not make."""
    place = (latitude, longitude)
    valid_place = place == (None, None) or all(isinstance(v, float) and math.isfinite(v) for v in place)
    if checksum(image, taken, *place) != stored or not (valid_place and isinstance(taken, int | None)):
        return None
    return Shot(taken, None if latitude is None else place)


def insert_exif(shard: sqlite3.Connection, id_: int, exif: Shot) -> None:
    """Insert or replace the date and place of an image."""
    row = (id_, *exif_row(exif))
    shard.execute("INSERT OR REPLACE INTO taken VALUES (?, ?, ?, ?, ?)", (*row, checksum(*row)))


def exif_row(exif: Shot) -> tuple[int | float | None, ...]:
    """Return the columns of `taken` without image id and checksum."""
    return (exif.taken, *(exif.place or (None, None)))


def set_count(shard: sqlite3.Connection, images: int) -> None:
    shard.execute("DELETE FROM contents")
    shard.execute("INSERT INTO contents VALUES (?)", (images,))


def shard_files(path: Path, recorded: int) -> list[Path]:
    """Return all shard files in order, up to the last recorded or existing one; any of them may be missing."""
    there = [int(file.stem[-5:]) + 1 for file in path.glob(f"shard-{'[0-9]' * 5}.sqlite")]
    return [shard_file(path, number) for number in range(max([recorded, *there]))]


def shard_file(path: Path, number: int) -> Path:
    return path / f"shard-{number:05d}.sqlite"


def create_shard(file: Path, page_bytes: int = PAGE_BYTES) -> sqlite3.Connection:
    """Create and open a shard. It is renamed into place once complete, so a kill leaves no shard without tables."""
    unfinished = file.with_suffix(".new")
    with translated_errors(file):
        unfinished.unlink(missing_ok=True)
        connection = sqlite3.connect(unfinished)
        connection.execute(f"PRAGMA page_size = {page_bytes}")
        connection.executescript(SCHEMA)
        connection.close()
        for left_behind in ("-wal", "-shm"):  # of a shard that was moved away: SQLite would apply them here
            Path(f"{file}{left_behind}").unlink(missing_ok=True)
        rename(unfinished, file)
    return connect(file)


def connect(file: Path, readonly: bool = False) -> sqlite3.Connection:
    """Open a shard. A commit returns once it is synced to disk (`synchronous = FULL`)."""
    with translated_errors(file):
        require_regular(file, file.stat())  # opening a named pipe would block
        if not readonly:
            connection = sqlite3.connect(file, check_same_thread=False)
            require_plain_tables(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            return connection
        # Reading in WAL mode writes an index file beside the shard. If that is impossible, open it as immutable.
        log = Path(f"{file}-wal")
        logged = log.exists() and log.stat().st_size > 0
        locked = not os.access(file.parent, os.W_OK)
        fixed = locked or (not logged and shutil.disk_usage(file.parent).free < READER_BYTES)
        if locked and logged:
            raise GalleryError(
                f"{file}: its last writer was killed and the folder is read-only; open it once where it is writable"
            )
        uri = f"{file.absolute().as_uri()}?mode=ro{'&immutable=1' if fixed else ''}"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        require_plain_tables(connection)
        return connection


@contextlib.contextmanager
def reading(file: Path) -> Iterator[sqlite3.Connection]:
    """Open a shard for reading.

    Raises:
        GalleryError: it is missing or cannot be read.
    """
    if not file.exists():
        raise GalleryError(f"{file}: missing from the gallery; {REPAIR}")
    with contextlib.closing(connect(file, readonly=True)) as shard, translated_errors(file):
        yield shard


@contextlib.contextmanager
def snapshot(shard: sqlite3.Connection) -> Iterator[None]:
    """Make all reads within the block see the same state of the shard."""
    shard.execute("BEGIN")
    try:
        yield
    finally:
        shard.rollback()


def require_plain_tables(connection: sqlite3.Connection) -> None:
    """Raise DatabaseError if a shard has views, triggers or virtual tables, which run SQL that is not ours."""
    query = "SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index') OR sql LIKE 'CREATE VIRTUAL%'"
    found = connection.execute(query).fetchone()
    if found:
        connection.close()
        raise sqlite3.DatabaseError(f"unexpected {' '.join(found)}; expected plain tables")


class Connections(Closing):
    """A thread-safe pool of connections to a gallery's shards; several threads may use the same shard.

    Connections are opened on use, and at most `MOST_CONNECTIONS` are kept open.
    """

    def __init__(self, readonly: bool = False) -> None:
        self.files: list[Path] = []
        self._readonly = readonly
        self._lock = threading.Lock()
        self._kept: dict[int, sqlite3.Connection] = {}  # least recently used first
        self._closed = False

    @contextlib.contextmanager
    def use(self, shard: int) -> Iterator[sqlite3.Connection]:
        """Lend a connection to a shard, for one thread at a time; SQLite's errors become GalleryErrors.

        Raises:
            GalleryError: the shard is not accessible, or not a database.
            GalleryError: the connections have been closed.
        """
        with self._lock:
            if self._closed:
                raise GalleryError("the gallery is closed; open it again")
            connection = self._kept.pop(shard, None)
        connection = connection or connect(self.files[shard], self._readonly)
        try:
            with translated_errors(self.files[shard]):
                yield connection
        finally:
            self._keep(shard, connection)

    def _keep(self, shard: int, connection: sqlite3.Connection) -> None:
        with self._lock:
            spare = [self._kept.pop(shard)] if shard in self._kept else []  # another thread's
            self._kept[shard] = connection
            while len(self._kept) > (0 if self._closed else MOST_CONNECTIONS):
                spare.append(self._kept.pop(next(iter(self._kept))))
        for unused in spare:
            unused.close()

    def close(self) -> None:
        """Close all connections; those in use are closed when they are returned."""
        with self._lock:
            self._closed = True
            kept = list(self._kept.values())
            self._kept.clear()
        for connection in kept:
            connection.close()


def checksum(*columns: int | float | bytes | None) -> int:
    """CRC-32 of a row's columns."""
    crc = 0
    for column in columns:
        crc = zlib.crc32(column if isinstance(column, bytes) else f"{column} ".encode(), crc)
    return crc


def damage(what: Path, reason: object) -> str:
    return f"{what}: features damaged in the gallery ({reason}); {REPAIR}"


def mark_damaged(path: Path) -> None:
    """Mark the gallery as damaged so that the next writer checks every row and map; ignored if not writable."""
    with contextlib.suppress(OSError):
        flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # follow no link, wait for no pipe
        os.close(os.open(path / DAMAGED, flags, 0o666))


@contextlib.contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Make SQLite put its temporary files into a folder, because /tmp may be too small for a shard."""
    before = os.environ.get(TEMPORARY)
    os.environ[TEMPORARY] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[TEMPORARY]
        else:
            os.environ[TEMPORARY] = before


@contextlib.contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Translate SQLite's and the operating system's errors into GalleryError."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:  # SQLite's messages can quote damaged text
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in (
            errno.ENOSPC,
            errno.EDQUOT,
        )
        broken = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF in BROKEN
        if full:
            remedy = "free some space and run the same command again; what was stored is kept"
        elif broken:
            remedy = f"move the damaged shard away, then {REPAIR}"
        else:
            remedy = "check the folder and its disk"
        raise GalleryError(f"{path}: gallery not accessible ({one_line(error)}); {remedy}") from error
