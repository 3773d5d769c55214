"""Points of the grid with accuracy and cost, and the Pareto frontier among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from benchmarks.lab.frontier.accuracy import Figures
from benchmarks.lab.frontier.grid import Point
from benchmarks.lab.frontier.times import Times
from cvnet_engine.benchmarks.accuracy.protocol import SETUPS

JUDGED_BY = "M"  # setup of the reported accuracy


@dataclass(frozen=True)
class Judged:
    """Accuracy of a point on one data set.

    Attributes:
        means: mAP in percent by setup.
        loss: points of Medium mAP lost against the published computation, and the standard error over queries.
    """

    point: Point
    means: dict[str, float]
    loss: tuple[float, float]


@dataclass(frozen=True)
class Costed(Judged):
    """Accuracy and cost of a point.

    Attributes:
        query_s, index_s: seconds per query, and per indexed image.
        candidate_s: reranking seconds per candidate.
        image_bytes: bytes per image in a gallery.
    """

    query_s: float
    index_s: float
    candidate_s: float
    image_bytes: float

    @property
    def score(self) -> float:
        return self.means[JUDGED_BY]


@dataclass(frozen=True)
class Aim:
    """Limits of a preset: points of Medium mAP lost, and seconds as in `Costed`."""

    loss: float
    query_s: float
    index_s: float
    candidate_s: float = inf

    def is_met(self, costed: Costed) -> bool:
        quick = costed.query_s <= self.query_s and costed.candidate_s <= self.candidate_s
        return self.is_accurate(costed) and quick and costed.index_s <= self.index_s

    def is_accurate(self, costed: Costed) -> bool:
        return costed.loss[0] <= self.loss


def judgements(figures: Mapping[Point, Figures], published: Sequence[float]) -> list[Judged]:
    """Compare every point of a data set with `published`, the APs of each query in Medium."""
    return [
        Judged(point, {setup: float(np.mean(aps[setup])) for setup in SETUPS}, loss(published, aps[JUDGED_BY]))
        for point, aps in figures.items()
    ]


def costed(found: Iterable[Judged], times: Times) -> list[Costed]:
    """Add costs to the points whose stages were timed; this processor may lack a precision evaluated elsewhere."""
    return [
        Costed(
            **vars(judged),
            query_s=times.query_s(judged.point),
            index_s=times.index_s(judged.point),
            candidate_s=times.rerank_s(judged.point) / max(judged.point.shortlist, 1),
            image_bytes=times.image_bytes(judged.point),
        )
        for judged in found
        if times.cover(judged.point)
    ]


def loss(published: Sequence[float], aps: Sequence[float]) -> tuple[float, float]:
    """Return the mean AP lost over queries, and its standard error."""
    lost = np.subtract(published, aps)
    return float(lost.mean()), float(lost.std(ddof=1) / np.sqrt(len(lost)))


def pareto(points: Iterable[Costed], cost: Callable[[Costed], float]) -> list[Costed]:
    """Return the points that no other point beats in both cost and accuracy, cheapest first.

    Among points equal in both, the smallest and fastest is chosen. Without pair scores, map formats differ only in
    bytes, so such points occur.
    """
    best: list[Costed] = []
    for candidate in sorted(points, key=lambda c: (cost(c), -c.score, c.image_bytes, c.query_s)):
        if not best or candidate.score > best[-1].score:
            best.append(candidate)
    return best


def name(point: Point) -> str:
    """Return a short name that distinguishes the point."""
    scales = "" if len(point.scales) == 3 else f", {len(point.scales)} scale{'s' if len(point.scales) > 1 else ''}"
    descriptor = "" if point.descriptor == "cvnet" else f"{point.descriptor} "
    return f"{descriptor}{point.max_side_px} px {point.precision} {point.maps}{scales}, {reranking(point)}"


def reranking(point: Point) -> str:
    if not point.shortlist:
        return "no reranking"
    method = "" if point.method == "cvnet" else f" by {point.method}"
    return f"best {point.shortlist}{method}" + ("" if point.fine is None else f", {point.fine} in full")
