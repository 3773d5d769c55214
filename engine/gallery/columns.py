"""Columns of a gallery: ids, sizes, paths and descriptors of its images, shard by shard and as one table.

They are kept in columns files, caches beside the shards that let a gallery open without reading every row:

    shard-00000.columns   `HEADER`, padded to 64 KiB
                          descriptors (n, 2048) float32, then the same in float16; memory-mapped
                          table (n,) of `ENTRY`, then the concatenated paths

A columns file is ignored unless its state number matches the shard's, which every change of the shard's images
replaces in the same transaction. Table and paths are read on opening and have a checksum; each descriptor is checked
on use, against the checksum of its row.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, Self, overload

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import ShardsLostError
from cvnet_engine.engine.files import open_regular, rename
from cvnet_engine.engine.gallery.shards import Contents, Location, StoredImage, parse_descriptor
from cvnet_engine.engine.geometry import DESCRIPTOR_DIM, Size

MAGIC = b"cvnetcol"
HEADER = struct.Struct("<8sqqqI")  # MAGIC, the shard's state, images, bytes of paths, CRC-32 of these, table and paths
HEADER_BYTES = 65536  # a multiple of every system's page size
ENTRY = np.dtype([(name, "<i8") for name in ("id", "height", "width", "checksum", "name_end")])
HALF_BYTES, ROW_BYTES = 2 * DESCRIPTOR_DIM, 4 * DESCRIPTOR_DIM


@dataclass(frozen=True)
class Columns:
    """Images of a shard, in ascending order of id.

    Attributes:
        table: (n,) of `ENTRY`: columns of the image's row, and the end of its path in `names`.
        names: concatenated paths, in the file system's encoding.
        descriptors: (n, 2048) float32, unit norm.
        halves: the same in float16; None if read from the shard's rows.
        release: see `Block`.
    """

    table: Array
    names: bytes
    descriptors: Array
    halves: Array | None = None
    release: Callable[[], object] = lambda: None

    @classmethod
    def of_images(cls, images: Sequence[StoredImage]) -> Self:
        table, end = np.empty(len(images), ENTRY), 0
        for place, image in enumerate(images):
            end += len(image.name)
            table[place] = image.id, *image.map_size, image.checksum, end
        descriptors = [image.descriptor for image in images]
        stacked = np.stack(descriptors) if descriptors else np.empty((0, DESCRIPTOR_DIM), np.float32)
        return cls(table, b"".join(image.name for image in images), stacked)

    def __len__(self) -> int:
        return len(self.table)

    def first(self, count: int) -> Columns:
        """Return the columns of the first `count` images."""
        table = self.table[:count]
        names = self.names[: int(table["name_end"][-1:].sum())]
        halves = None if self.halves is None else self.halves[:count]
        return replace(self, table=table, names=names, descriptors=self.descriptors[:count], halves=halves)

    def name(self, place: int) -> bytes:
        """Return the path of an image, in the file system's encoding."""
        start = self.table["name_end"][place - 1] if place else 0
        return self.names[start : self.table["name_end"][place]]

    def each_name(self) -> Iterator[bytes]:
        """Yield the path of each image, in the file system's encoding."""
        start = 0
        for end in self.table["name_end"].tolist():
            yield self.names[start:end]
            start = end

    def require_descriptor(self, place: int) -> None:
        """Raise ValueError if the descriptor of an image is damaged."""
        id_, height, width, stored, _ = self.table[place].item()
        data = self.descriptors[place].tobytes()
        descriptor = parse_descriptor(id_, self.name(place), height, width, data, stored)
        if self.halves is not None and not np.array_equal(self.halves[place], descriptor.astype(np.float16)):
            raise ValueError("descriptor differs from its float16 copy")

    def require_sound(self) -> None:
        """Raise ValueError if table and paths are inconsistent."""
        ids, ends = self.table["id"], self.table["name_end"]
        in_order = (np.diff(ids) > 0).all() and (np.diff(ends, prepend=0) >= 0).all()
        sizes_fit = (self.table["height"] > 1).all() and (self.table["width"] > 1).all()
        if not (in_order and sizes_fit and int(ends[-1:].sum()) == len(self.names)) or b"\0" in self.names:
            raise ValueError("inconsistent table")


@dataclass(frozen=True)
class Entry:
    """A row of the table: location, path in the file system's encoding; map size and checksum as in `StoredImage`."""

    location: Location
    name: bytes
    map_size: Size
    checksum: int


class Table:
    """Columns of all shards as one table; row 0 is the first image of the first shard."""

    def __init__(self, shards: Sequence[Columns]) -> None:
        self.shards = shards
        self._starts = [0, *accumulate(len(columns) for columns in shards)]

    def __len__(self) -> int:
        return self._starts[-1]

    def place(self, row: int) -> tuple[int, int]:
        """Return the shard number of a row, and its position in that shard."""
        row = range(len(self))[row]
        shard = bisect_right(self._starts, row) - 1
        return shard, row - self._starts[shard]

    def entry(self, row: int) -> Entry:
        shard, place = self.place(row)
        id_, height, width, checksum, _ = self.shards[shard].table[place].item()
        return Entry(Location(shard, id_), self.shards[shard].name(place), (height, width), checksum)

    def names(self) -> Iterator[bytes]:
        """Yield the path of each row, in the file system's encoding."""
        for columns in self.shards:
            yield from columns.each_name()


class Paths(Sequence[Path]):
    """Paths of a table, decoded on access; equal to a list of the same paths."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, row: int) -> Path: ...
    @overload
    def __getitem__(self, row: slice) -> list[Path]: ...
    def __getitem__(self, row: int | slice) -> Path | list[Path]:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        return Path(os.fsdecode(self._table.entry(row).name))

    def __iter__(self) -> Iterator[Path]:
        return (Path(os.fsdecode(name)) for name in self._table.names())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class ShardState:
    """State of a shard when the gallery was opened: number of images, and CRC-32 of their table."""

    images: int
    checksum: int

    @classmethod
    def of(cls, columns: Columns) -> Self:
        return cls(len(columns), zlib.crc32(columns.table.tobytes()))


@dataclass(frozen=True)
class ShardRange:
    """Consecutive shards of a gallery, which other processes open in the state that one process saw.

    Attributes:
        gallery: the folder.
        first: number of the first shard.
    """

    gallery: Path
    first: int
    shards: tuple[ShardState, ...]

    def __len__(self) -> int:
        """Number of images."""
        return sum(state.images for state in self.shards)

    def cut(self, opened: Sequence[Columns]) -> list[Columns]:
        """Return the columns of these shards without images that were added since.

        Raises:
            ShardsLostError: images were removed or changed.
        """
        found = [columns.first(state.images) for columns, state in zip(opened, self.shards, strict=False)]
        if list(map(ShardState.of, found)) != list(self.shards):
            raise ShardsLostError(f"{self.gallery}: shards from {self.first} on have changed; open the gallery again")
        return found


def split_shards(gallery: Path, shards: Sequence[Columns], count: int) -> list[ShardRange]:
    """Divide the shards of a gallery into at most `count` ranges with about the same number of images."""
    total, before = sum(map(len, shards)), 0
    ranges: dict[int, list[int]] = defaultdict(list)  # shard numbers
    for number, columns in enumerate(shards):
        middle = before + len(columns) / 2
        ranges[min(int(count * middle / max(total, 1)), count - 1)].append(number)
        before += len(columns)
    return [ShardRange(gallery, some[0], tuple(ShardState.of(shards[n]) for n in some)) for some in ranges.values()]


def columns_file(shard: Path) -> Path:
    return shard.with_suffix(".columns")


def write_columns(shard: Path, state: int, columns: Columns) -> None:
    """Write the columns file of a shard.

    Raises:
        OSError: it cannot be written; an existing file is unchanged.
    """
    file = columns_file(shard)
    unfinished = file.with_suffix(".columns-new")
    unfinished.unlink(missing_ok=True)  # left by a killed writer, or a planted link
    try:
        with unfinished.open("xb") as stream:
            sizes = len(columns), len(columns.names)
            header = HEADER.pack(MAGIC, state, *sizes, crc(state, columns.table, columns.names))
            stream.write(header.ljust(HEADER_BYTES, b"\0"))
            for part in (columns.descriptors, columns.descriptors.astype(np.float16), columns.table):
                stream.write(part.data)
            stream.write(columns.names)
            stream.flush()
            os.fsync(stream.fileno())
        rename(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def open_columns(shard: Path, contents: Contents) -> Columns | None:
    """Open the columns file of a shard, descriptors memory-mapped; None if it is missing, stale or damaged."""
    try:
        with open_regular(columns_file(shard)) as stream:
            return map_columns(stream, contents)
    except (OSError, ValueError, struct.error):
        return None


def map_columns(stream: BinaryIO, contents: Contents) -> Columns:
    """Parse a columns file, descriptors memory-mapped.

    Raises:
        ValueError: the file is stale, or damaged outside the descriptors.
    """
    magic, state, count, name_bytes, stored = HEADER.unpack(stream.read(HEADER.size))
    if (magic, state, count) != (MAGIC, contents.state, contents.images):
        raise ValueError("stale")
    halves_at = HEADER_BYTES + count * ROW_BYTES
    table_at = halves_at + count * HALF_BYTES
    names_at = table_at + count * ENTRY.itemsize
    if os.fstat(stream.fileno()).st_size != names_at + name_bytes or min(count, name_bytes) < 0:
        raise ValueError("wrong length")
    stream.seek(table_at)
    table, names = np.frombuffer(stream.read(names_at - table_at), ENTRY), stream.read(name_bytes)
    if crc(state, table, names) != stored:
        raise ValueError("checksum differs")
    mapped = mmap.mmap(stream.fileno(), table_at, access=mmap.ACCESS_READ)

    def descriptors(dtype: type[np.floating], at: int) -> Array:
        return np.frombuffer(mapped, dtype, count * DESCRIPTOR_DIM, at).reshape(count, DESCRIPTOR_DIM)

    def release() -> None:
        if count:
            mapped.madvise(mmap.MADV_DONTNEED, HEADER_BYTES, count * ROW_BYTES)

    columns = Columns(table, names, descriptors(np.float32, HEADER_BYTES), descriptors(np.float16, halves_at), release)
    columns.require_sound()
    return columns


def crc(state: int, table: Array, names: bytes) -> int:
    """Return the CRC-32 of header, table and paths."""
    head = HEADER.pack(MAGIC, state, len(table), len(names), 0)
    return zlib.crc32(names, zlib.crc32(table.tobytes(), zlib.crc32(head)))
