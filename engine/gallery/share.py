"""A gallery's shards shared out, so that several processes hold what one has opened."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cvnet_engine.engine.errors import PartLostError
from cvnet_engine.engine.gallery.columns import Columns


@dataclass(frozen=True)
class Held:
    """What a shard held when a gallery was opened: how many images, and the CRC-32 of their table."""

    images: int
    checksum: int


@dataclass(frozen=True)
class Share:
    """Shards of a gallery, one after the other, as they were when it was opened.

    Attributes:
        gallery: its folder.
        first: the number of the first.
    """

    gallery: Path
    first: int
    shards: tuple[Held, ...]

    def __len__(self) -> int:
        """How many images."""
        return sum(held.images for held in self.shards)

    def cut(self, opened: Sequence[Columns]) -> list[Columns]:
        """These shards without what was added since.

        Raises:
            PartLostError: they have not only grown.
        """
        found = [columns.first(held.images) for columns, held in zip(opened, self.shards, strict=False)]
        if [held_by(columns) for columns in found] != list(self.shards):
            raise PartLostError(f"{self.gallery}: shards from {self.first} on have changed; open the gallery again")
        return found


def held_by(columns: Columns) -> Held:
    return Held(len(columns), zlib.crc32(columns.table.tobytes()))


def share_out(gallery: Path, shards: Sequence[Columns], count: int) -> list[Share]:
    """All shards of a gallery in `count` shares of about as many images, or fewer."""
    total, before = sum(map(len, shards)), 0
    numbers: dict[int, list[int]] = defaultdict(list)  # of shards, by share
    for number, columns in enumerate(shards):
        middle = before + len(columns) / 2
        numbers[min(int(count * middle / max(total, 1)), count - 1)].append(number)
        before += len(columns)
    return [Share(gallery, some[0], tuple(held_by(shards[number]) for number in some)) for some in numbers.values()]
