"""Descriptors of a collection in blocks, possibly memory-mapped: read by row, or scanned block by block."""

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
    """Descriptors of consecutive rows.

    Attributes:
        rows: (n, 2048) float32, unit norm.
        halves: the same descriptors in float16; None if not stored.
        release: drops the mapped pages of `rows` from this process; they stay in the page cache. Otherwise, reading a
            single row may add megabytes to this process.
    """

    rows: Array
    halves: Array | None = None
    release: Callable[[], object] = lambda: None

    def in_half(self) -> Array:
        """Return the descriptors (n, 2048) float16, converted if they are not stored."""
        return self.rows.astype(np.float16) if self.halves is None else self.halves


class Descriptors:
    """The descriptors (n, 2048) float32 of a collection, in the order of its rows.

    Indexing checks each row on its first access; `blocks` are not checked.
    """

    def __init__(self, blocks: Sequence[Block], check: Callable[[int], None] = lambda _: None) -> None:
        """
        Args:
            check: called with a row number on its first access; raises if the row is damaged.
        """
        self.blocks = list(blocks)
        self._starts = np.cumsum([0, *(len(block.rows) for block in blocks)])  # of each block, then the last end
        self._numbers = np.arange(self._starts[-1])
        self._check = check
        self._checked = np.zeros(len(self), bool)

    @classmethod
    def of_array(cls, rows: Array) -> Self:
        """Wrap an array (n, 2048) float32, which may be a memory map."""
        return cls([Block(rows)])

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), DESCRIPTOR_DIM

    def __getitem__(self, rows: int | slice | Array) -> Array:
        """Return a copy of rows, indexed as in NumPy: (2048,) for one row, (k, 2048) for several.

        Raises:
            GalleryError: a row is damaged.
        """
        numbers = np.asarray(self._numbers[rows])
        for row in numbers[~self._checked[numbers]].tolist():
            self._check(row)
            self._checked[row] = True
        found = np.empty((*numbers.shape, DESCRIPTOR_DIM), np.float32)
        flat = found.reshape(-1, DESCRIPTOR_DIM)
        for block, indices, within in self.by_block(numbers.reshape(-1)):
            flat[indices] = self.blocks[block].rows[within]
        return found

    def by_block(self, rows: Array) -> Iterator[tuple[int, Array, Array]]:
        """Yield, per block with any of `rows` (k,) int64: block number, indices into `rows`, rows in the block."""
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows, self._starts, sorter=order)
        for number, (first, last) in enumerate(pairwise(bounds)):
            if first < last:
                indices = order[first:last]
                yield number, indices, rows[indices] - self._starts[number]

    def release(self) -> None:
        """Drop the mapped pages that rows have been copied from."""
        for block in self.blocks:
            block.release()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return all descriptors, always as a copy."""
        return self[:].astype(dtype or np.float32, copy=False)
