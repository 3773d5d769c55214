"""Ranges of consecutive shards, which other processes open in the state that one process saw."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cvnet_engine.engine.errors import ShardsLostError
from cvnet_engine.engine.gallery.columns import Columns


@dataclass(frozen=True)
class ShardState:
    """State of a shard when the gallery was opened: number of images, and CRC-32 of their table."""

    images: int
    checksum: int


@dataclass(frozen=True)
class ShardRange:
    """Consecutive shards of a gallery, as they were when it was opened.

    Attributes:
        gallery: the folder.
        first: number of the first shard.
    """

    gallery: Path
    first: int
    shards: tuple[ShardState, ...]

    def __len__(self) -> int:
        """Number of images."""
        return sum(held.images for held in self.shards)

    def cut(self, opened: Sequence[Columns]) -> list[Columns]:
        """Return the columns of these shards without images that were added since.

        Raises:
            ShardsLostError: images were removed or changed.
        """
        found = [columns.first(held.images) for columns, held in zip(opened, self.shards, strict=False)]
        if [state_of(columns) for columns in found] != list(self.shards):
            raise ShardsLostError(f"{self.gallery}: shards from {self.first} on have changed; open the gallery again")
        return found


def state_of(columns: Columns) -> ShardState:
    return ShardState(len(columns), zlib.crc32(columns.table.tobytes()))


def split_shards(gallery: Path, shards: Sequence[Columns], count: int) -> list[ShardRange]:
    """Divide the shards of a gallery into at most `count` ranges with about the same number of images."""
    total, before = sum(map(len, shards)), 0
    numbers: dict[int, list[int]] = defaultdict(list)  # of shards, by range
    for number, columns in enumerate(shards):
        middle = before + len(columns) / 2
        numbers[min(int(count * middle / max(total, 1)), count - 1)].append(number)
        before += len(columns)
    return [
        ShardRange(gallery, some[0], tuple(state_of(shards[number]) for number in some)) for some in numbers.values()
    ]
