"""A collection's descriptors in blocks, which may be memory maps: looked at by row, or scanned block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.geometry import DESCRIPTOR_DIM


@dataclass(frozen=True)
class Block:
    """Descriptors one after the other.

    Attributes:
        rows: (n, 2048) float32, unit norm.
        halves: the same in float16, where that is there.
        release: lets go of the mapped pages of `rows`, which stay in the system's cache: a single row that is looked
            at may count as megabytes of this process.
    """

    rows: Array
    halves: Array | None = None
    release: Callable[[], object] = lambda: None

    def in_half(self) -> Array:
        """(n, 2048) float16, made where it is not there."""
        return self.rows.astype(np.float16) if self.halves is None else self.halves


class Descriptors:
    """The descriptors (n, 2048) float32 of a collection, in the order of its rows.

    Rows taken by number are checked, each the first time that it is; blocks are as they are on the disk.
    """

    def __init__(self, blocks: Sequence[Block], check: Callable[[int], None] = lambda _: None) -> None:
        """
        Args:
            check: called with a row before it is given to anyone; raises where it is not what was stored.
        """
        self.blocks = list(blocks)
        self._starts = np.cumsum([0, *(len(block.rows) for block in blocks)])  # of the blocks, and where the last ends
        self._numbers = np.arange(self._starts[-1])
        self._check = check
        self._checked = np.zeros(len(self), bool)

    @classmethod
    def of_array(cls, rows: Array) -> Self:
        """Of an array (n, 2048) float32, which may be a memory map."""
        return cls([Block(rows)])

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), DESCRIPTOR_DIM

    def __getitem__(self, rows: int | slice | Array) -> Array:
        """A copy of rows, which are named as for an array: one is (2048,), several are (k, 2048).

        Raises:
            GalleryError: one of them is damaged.
        """
        wanted = np.asarray(self._numbers[rows])
        for row in wanted[~self._checked[wanted]].tolist():
            self._check(row)
            self._checked[row] = True
        found = np.empty((*wanted.shape, DESCRIPTOR_DIM), np.float32)
        flat = found.reshape(-1, DESCRIPTOR_DIM)
        for number, places, within in self.by_block(wanted.reshape(-1)):
            flat[places] = self.blocks[number].rows[within]
        return found

    def by_block(self, rows: Array) -> Iterator[tuple[int, Array, Array]]:
        """Each block with any of `rows` (k,) int64: its number, which of `rows` these are, and which of its own."""
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows, self._starts, sorter=order)
        for number, (first, last) in enumerate(pairwise(bounds)):
            if first < last:
                places = order[first:last]
                yield number, places, rows[places] - self._starts[number]

    def release(self) -> None:
        """Let go of the pages that rows have been copied from."""
        for block in self.blocks:
            block.release()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """All of them; a copy always."""
        return self[:].astype(dtype or np.float32, copy=False)
