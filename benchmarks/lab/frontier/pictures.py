"""Images of a data set, limited to a longest side as in `index` and `search`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cvnet_engine.benchmarks.accuracy.dataset import Dataset
from cvnet_engine.benchmarks.accuracy.evaluation import within
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.geometry import Size
from cvnet_engine.engine.images import Box, limiting, load, read_size


@dataclass(frozen=True)
class Picture:
    """An image file. A query is cropped to its box, then shrunk to a longest side, as in `search`."""

    path: Path
    bbx: Box | None
    max_side_px: int

    def read(self) -> Array:
        """Return (H, W, 3) uint8."""
        box = within(read_size(self.path), self.bbx) if self.bbx else None
        return load(self.path, box, self.max_side_px)

    @cached_property
    def size(self) -> Size:
        """(height, width) px, accurate to one pixel."""
        if self.bbx is None:
            return read_size(self.path, self.max_side_px)
        height, width = read_size(self.path)
        x1, y1, x2, y2 = self.bbx
        cropped = min(y2, height) - y1, min(x2, width) - x1
        scale = limiting(cropped, self.max_side_px)
        return round(cropped[0] * scale), round(cropped[1] * scale)


def images(dataset: Dataset, max_side_px: int) -> list[Picture]:
    """Return the database images."""
    return [Picture(path, None, max_side_px) for path in dataset.images]


def queries(dataset: Dataset, max_side_px: int) -> list[Picture]:
    pairs = zip(dataset.queries, dataset.ground_truth, strict=True)
    return [Picture(path, truth.bbx, max_side_px) for path, truth in pairs]


def longest_px(dataset: Dataset) -> int:
    """Return the longest side of any image."""
    return max(max(read_size(path)) for path in (*dataset.images, *dataset.queries))
