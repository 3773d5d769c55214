"""What the engines do for a request, as the steps that the scheduler takes."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cvnet_engine.server.collection import Snapshot
from engine.contract import Array
from engine.features import Features
from engine.images import crop, decode, limit_side
from engine.retrieval.ranking import Ranking
from engine.retrieval.retriever import Retriever
from engine.retrieval.searcher import Found, Plan

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Described:
    """Features of the query."""

    features: Features


@dataclass(frozen=True)
class Ranked:
    """The ranking by similarity, how many pairs of it will be scored, and seconds by stage so far."""

    before: Ranking
    pairs: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Scored:
    """Pairs that were scored: rows of the gallery and scores (n,) float32."""

    rows: list[int]
    scores: Array


class Stages:
    """Seconds of work by stage; what other jobs did meanwhile is not counted."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started


def extract(retriever: Retriever, data: bytes, box: Box | None, max_side_px: int | None) -> Features:
    """Features of the image in a file's bytes, as `Retriever.extract_file` finds them in a file.

    Raises:
        ImageError: not an image, out of bounds, or a box that misses it.
    """
    image = decode(data)
    return retriever.extract(limit_side(image if box is None else crop(image, box), max_side_px))


def describe(query: Callable[[], Features]) -> Iterator[Described]:
    """The features of a query."""
    yield Described(query())


def search(
    query: Callable[[], Features], snapshot: Snapshot, plan: Plan, among: Array | None
) -> Iterator[Described | Ranked | Scored | Found]:
    """A query in a gallery: its features, global search, batches of pairs, and the ranking that `Searcher.find` finds.

    Args:
        among: rows (n,) to search, ascending; None for all.
    """
    stages, searcher = Stages(), snapshot.searcher
    with stages.timed("features"):
        features = query()
    yield Described(features)
    with stages.timed("global"):
        before = searcher.rank(features, plan, among)
    yield Ranked(before, min(plan.pairs, len(before.rows)), dict(stages.seconds))
    with stages.timed("rerank"):
        refined = searcher.refine(features, before, plan)
    shortlist = refined.rows[: plan.pairs].tolist()
    scores: dict[int, float] = {}
    with contextlib.closing(searcher.score_batches(features, shortlist)) as batches:
        while True:
            with stages.timed("rerank"):
                batch = next(batches, None)
            if batch is None:
                break
            scores |= zip(*batch, strict=True)
            yield Scored(*batch)
    ranking = refined.reranked(np.array([scores[row] for row in shortlist], np.float32))
    yield Found(before, ranking, dict(stages.seconds))
