"""Images of all of a gallery's shards, numbered through."""

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
    """An image: where its row is, its path as the file system has it, and what else its row has: see `StoredImage`."""

    location: Location
    name: bytes
    map_size: Size
    checksum: int


class Table:
    """The shards' columns, one after the other; row 0 is the first image of the first."""

    def __init__(self, shards: Sequence[Columns]) -> None:
        self.shards = shards
        self._starts = [0, *accumulate(len(columns) for columns in shards)]

    def __len__(self) -> int:
        return self._starts[-1]

    def place(self, row: int) -> tuple[int, int]:
        """A row's shard, and its place in there."""
        row = range(len(self))[row]
        shard = bisect_right(self._starts, row) - 1
        return shard, row - self._starts[shard]

    def entry(self, row: int) -> Entry:
        shard, place = self.place(row)
        id_, height, width, checksum, _ = self.shards[shard].table[place].item()
        return Entry(Location(shard, id_), self.shards[shard].name(place), (height, width), checksum)

    def names(self) -> Iterator[bytes]:
        """Every path in the file system's own encoding, by row."""
        for columns in self.shards:
            yield from columns.each_name()


class Paths(Sequence[Path]):
    """The paths of a table, decoded one by one when they are looked at; equal to a list of the same."""

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
