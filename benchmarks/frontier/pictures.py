"""The pictures of a data set, shrunk to a longest side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.accuracy.dataset import Dataset
from benchmarks.accuracy.evaluation import sliced
from engine.contract import Array
from engine.geometry import Size
from engine.images import limit_side, read, read_size

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 px


@dataclass(frozen=True)
class Picture:
    """A file, shrunk to a longest side, and then cropped where it is a query: boxes are those of the file."""

    path: Path
    bbx: Box | None
    max_side_px: int

    def read(self) -> Array:
        """(H, W, 3) uint8."""
        image = read(self.path)
        small = limit_side(image, self.max_side_px)
        return small if self.bbx is None else sliced(small, scaled(self.bbx, small.shape[0] / image.shape[0]))

    @cached_property
    def size(self) -> Size:
        """Its (height, width) px, to a pixel."""
        height, width = read_size(self.path, self.max_side_px)
        if self.bbx is None:
            return height, width
        x1, y1, x2, y2 = scaled(self.bbx, height / read_size(self.path)[0])
        return int(min(y2, height) - y1), int(min(x2, width) - x1)


def scaled(bbx: Box, scale: float) -> Box:
    x1, y1, x2, y2 = bbx
    return x1 * scale, y1 * scale, x2 * scale, y2 * scale


def images(dataset: Dataset, max_side_px: int) -> list[Picture]:
    """The database's."""
    return [Picture(path, None, max_side_px) for path in dataset.images]


def queries(dataset: Dataset, max_side_px: int) -> list[Picture]:
    found: Iterator[tuple[Path, Box]] = (
        (path, truth.bbx) for path, truth in zip(dataset.queries, dataset.ground_truth, strict=True)
    )
    return [Picture(path, bbx, max_side_px) for path, bbx in found]


def longest_px(dataset: Dataset) -> int:
    """The longest side of any image."""
    return max(max(read_size(path)) for path in (*dataset.images, *dataset.queries))
