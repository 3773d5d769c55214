"""Table of a gallery's images: consecutive row numbers over all shards."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import overload

from cvnet_engine.engine.gallery.columns import Columns
from cvnet_engine.engine.gallery.shards import Location
from cvnet_engine.engine.geometry import Size


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
