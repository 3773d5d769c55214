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

SAMPLED = 200  # database images whose sizes represent the whole database


@dataclass(frozen=True)
class Workload:
    """Remaining work: images to extract, their total pixels, and an upper bound of pairs and of their operations."""

    images: int
    pixels: float
    pairs: int
    pair_flop: float


@dataclass(frozen=True)
class Rates:
    """Measured seconds per extracted pixel and per operation of a pair score."""

    pixel: float
    pair_flop: float

    def seconds(self, work: Workload) -> float:
        return self.pixel * work.pixels + self.pair_flop * work.pair_flop


def workload(
    dataset: Dataset,
    images: Sequence[Path],
    queries: Sequence[int],
    longest: int,
    full: int | None = None,
) -> Workload:
    """Estimate the work of extracting the database `images` and of `queries` (rows) with shortlists up to `longest`.

    Args:
        full: candidates scored at full resolution after coarse-to-fine reranking, whose coarse pairs cost a sixteenth;
            None if all candidates are scored at full resolution.
    """
    database = sizes(sample(dataset.images))
    pixels = len(images) * float(np.mean([h * w for h, w in database]))
    pairs, flop = 0, 0.0
    for row in queries:
        truth = dataset.ground_truth[row]
        size = query_size(dataset.queries[row], truth)
        count = most_pairs(truth, len(dataset.images), longest)
        pixels += size[0] * size[1]
        pairs += count
        most = count if full is None or full >= longest else most_pairs(truth, len(dataset.images), full) + count / 16
        flop += most * float(np.mean([costs.pair(size, key).flop for key in database]))
    return Workload(len(images) + len(queries), pixels, pairs, flop)


def most_pairs(truth: GroundTruth, images: int, longest: int) -> int:
    """Return an upper bound of a query's pairs: the three setups' shortlists differ only by their ignored images."""
    return min(longest + max(len(truth.easy), len(truth.hard)), images - len(truth.junk)) if longest else 0


def query_size(path: Path, truth: GroundTruth) -> Size:
    """Return (height, width) px of a query image after cropping."""
    height, width = read_size(path)
    if truth.bbx is None:
        return height, width
    x1, y1, x2, y2 = (int(v) for v in truth.bbx)
    return max(1, min(y2, height) - y1), max(1, min(x2, width) - x1)


def sample(paths: Sequence[Path]) -> Sequence[Path]:
    """Return at most `SAMPLED` evenly spaced paths."""
    return paths[:: -(-len(paths) // SAMPLED)]


def sizes(paths: Sequence[Path]) -> list[Size]:
    return [read_size(path) for path in paths]


def rates(engines: Engines, path: Path) -> Rates:
    """Time the extraction of an image and the score of the image with itself, each after one warm-up call."""
    size = read_size(path)
    features = engines.extract_from(path)
    image_s = seconds(lambda: engines.extract_from(path))
    engines.score(features, [features])
    pair_s = seconds(lambda: engines.score(features, [features]))
    return Rates(image_s / (size[0] * size[1]), pair_s / costs.pair(size, size).flop)
