"""A query against a collection: global search, then the reranking that was asked for."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.contract import Array, Closing
from engine.features import Features
from engine.retrieval import superglobal
from engine.retrieval.ranking import Ranking
from engine.retrieval.retriever import Collection, Retriever
from engine.retrieval.search import DescriptorIndex
from engine.retrieval.superglobal import Refinement

RerankWith = Literal["cvnet", "superglobal", "both"]


@dataclass(frozen=True)
class Plan:
    """How a query is searched.

    Attributes:
        top_k: results wanted.
        rerank: candidates to rerank.
        method: what they are reranked with: pair scores; SuperGlobal's refined descriptors; or pair scores of the best
            of the published shortlist that these have put in order.
    """

    top_k: int = 10
    rerank: int = 100
    method: RerankWith = "cvnet"

    @property
    def refinement(self) -> Refinement | None:
        """SuperGlobal's, where it takes part."""
        match self.method:
            case "cvnet":
                return None
            case "superglobal":
                return Refinement(shortlist=self.rerank)
            case "both":
                return Refinement()

    @property
    def pairs(self) -> int:
        """How many pairs are scored at most."""
        return 0 if self.method == "superglobal" else self.rerank

    @property
    def depth(self) -> int:
        """How many images global search has to find."""
        return max(self.top_k, self.rerank, self.refinement.shortlist if self.refinement else 0)


@dataclass(frozen=True)
class Ranked:
    """The ranking by similarity, how many pairs of it will be scored, and seconds of work by stage so far."""

    before: Ranking
    pairs: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Scored:
    """Pairs that were scored: rows of the collection and scores (n,) float32."""

    rows: list[int]
    scores: Array


@dataclass(frozen=True)
class Found:
    """A query's outcome: the ranking by similarity, the final one, and what each stage took in seconds."""

    before: Ranking
    ranking: Ranking
    seconds: dict[str, float]


class Searcher(Closing):
    """A collection laid out for search, and the retriever that scores pairs of it. Neither is closed with it."""

    def __init__(self, retriever: Retriever, collection: Collection) -> None:
        self._retriever, self._collection = retriever, collection
        self._descriptors = collection.descriptors
        self._index = DescriptorIndex(self._descriptors)

    def find(
        self,
        query: Features,
        plan: Plan,
        done: Callable[[int], None] = lambda _: None,
        among: Array | None = None,
        leave_out: int | None = None,
    ) -> Found:
        """The best `plan.depth` images for a query, of which `plan.top_k` were asked for.

        Args:
            done: `done(n)` is called after each n pairs.
            among, leave_out: see `steps`.
        """
        for step in self.steps(query, plan, among, leave_out):
            if isinstance(step, Scored):
                done(len(step.rows))
        assert isinstance(step, Found)  # the last
        return step

    def steps(
        self, query: Features, plan: Plan, among: Array | None = None, leave_out: int | None = None
    ) -> Generator[Ranked | Scored | Found, None, None]:
        """What `find` does, a piece of work a step, so that steps for several queries can take turns on one thread.

        Args:
            among: rows (n,) int64 to search, ascending; None for all.
            leave_out: a row that is no result: the query itself, where it is of the collection.
        """
        stages = Stages()
        with stages.timed("global"):
            before = self._index.search(query.descriptor, plan.depth + (leave_out is not None), among)
            if leave_out is not None:
                before = before.without(np.array([leave_out])).first(plan.depth)
        yield Ranked(before, min(plan.pairs, len(before.rows)), dict(stages.seconds))
        with stages.timed("rerank"):
            ranking = self._refined(query, before, plan)
        shortlist = ranking.rows[: plan.pairs].tolist()
        scores: dict[int, float] = {}
        with contextlib.closing(self._retriever.score_batches(query, self._collection, shortlist)) as batches:
            while True:
                with stages.timed("rerank"):
                    batch = next(batches, None)
                if batch is None:
                    break
                scores |= zip(*batch, strict=True)
                yield Scored(*batch)
        ranking = ranking.reranked(np.array([scores[row] for row in shortlist], np.float32))
        yield Found(before, ranking, dict(stages.seconds))

    def _refined(self, query: Features, ranking: Ranking, plan: Plan) -> Ranking:
        """A ranking by similarity in the order whose first `plan.pairs` images are to be scored."""
        if plan.refinement is None or not len(ranking.rows):
            return ranking
        return superglobal.rerank(query.descriptor, ranking, self._descriptors, plan.refinement)

    def close(self) -> None:
        self._index.close()


class Stages:
    """Seconds of work by stage; what a caller does between steps is not counted."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started
