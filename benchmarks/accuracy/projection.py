"""Estimated duration of an evaluation, from one image and one pair timed before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvnet_engine.benchmarks.accuracy.dataset import Dataset, GroundTruth
from cvnet_engine.benchmarks.latency import costs
from cvnet_engine.benchmarks.latency.timing import seconds
from cvnet_engine.engine.geometry import Size
from cvnet_engine.engine.images import read_size
from cvnet_engine.engine.retrieval.engines import Engines

SAMPLED = 200  # database images whose sizes stand for all


@dataclass(frozen=True)
class Workload:
    """What is left to do: images to describe, their pixels, pairs to score at most, and their operations."""

    images: int
    pixels: float
    pairs: int
    pair_flop: float


@dataclass(frozen=True)
class Rates:
    """Seconds a pixel described and an operation of a pair score, as one image showed them."""

    pixel: float
    pair_flop: float

    def seconds(self, work: Workload) -> float:
        return self.pixel * work.pixels + self.pair_flop * work.pair_flop


def workload(
    dataset: Dataset,
    images: Sequence[Path],
    queries: Sequence[int],
    longest: int,
    cropped: bool,
    full: int | None = None,
) -> Workload:
    """The work of describing database `images` and of the `queries` (rows) with shortlists up to `longest`.

    Args:
        full: how many of a shortlist are scored at full size where others have pooled maps: a sixteenth of the work.
    """
    database = sizes(sample(dataset.images))
    pixels = len(images) * float(np.mean([h * w for h, w in database]))
    pairs, flop = 0, 0.0
    for row in queries:
        truth = dataset.ground_truth[row]
        size = query_size(dataset.queries[row], truth, cropped)
        count = most_pairs(truth, len(dataset.images), longest)
        pixels += size[0] * size[1]
        pairs += count
        most = count if full is None or full >= longest else most_pairs(truth, len(dataset.images), full) + count / 16
        flop += most * float(np.mean([costs.pair(size, key).flop for key in database]))
    return Workload(len(images) + len(queries), pixels, pairs, flop)


def most_pairs(truth: GroundTruth, images: int, longest: int) -> int:
    """Pairs that the three setups' shortlists of a query need at most: they overlap but for what each leaves out."""
    return min(longest + max(len(truth.easy), len(truth.hard)), images - len(truth.junk)) if longest else 0


def query_size(path: Path, truth: GroundTruth, cropped: bool) -> Size:
    """(height, width) px of a query image as it is described."""
    height, width = read_size(path)
    if not cropped:
        return height, width
    x1, y1, x2, y2 = (int(v) for v in truth.bbx)
    return max(1, min(y2, height) - y1), max(1, min(x2, width) - x1)


def sample(paths: Sequence[Path]) -> Sequence[Path]:
    """Evenly spaced."""
    return paths[:: -(-len(paths) // SAMPLED)]


def sizes(paths: Sequence[Path]) -> list[Size]:
    return [read_size(path) for path in paths]


def rates(retriever: Engines, path: Path) -> Rates:
    """Describe an image and score it with itself, each once more than timed."""
    size = read_size(path)
    features = retriever.extract_from(path)
    image_s = seconds(lambda: retriever.extract_from(path))
    retriever.score(features, [features])
    pair_s = seconds(lambda: retriever.score(features, [features]))
    return Rates(image_s / (size[0] * size[1]), pair_s / costs.pair(size, size).flop)
