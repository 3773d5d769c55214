"""A query against a collection: global search, then the reranking that was asked for."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np

from cvnet_engine.engine.contract import Array, Closing
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.retrieval.engines import Collection, Engines
from cvnet_engine.engine.retrieval.inverted_file import Approximate
from cvnet_engine.engine.retrieval.pooling import pooled, with_pooled_maps
from cvnet_engine.engine.retrieval.ranking import Ranking, final_scores
from cvnet_engine.engine.retrieval.search import DescriptorIndex
from cvnet_engine.engine.retrieval.superglobal import Refinement, refined_scores

RerankWith = Literal["cvnet", "superglobal", "both"]


@dataclass(frozen=True)
class Plan:
    """How a query is searched.

    Attributes:
        top_k: results wanted.
        rerank: candidates to rerank.
        method: what they are reranked with: pair scores; SuperGlobal's refined descriptors; or pair scores of the best
            of the published shortlist that these have put in order.
        rerank_full: candidates to score at full resolution, the best of the shortlist at half resolution; None for
            all, as published.
    """

    top_k: int = 10
    rerank: int = 100
    method: RerankWith = "cvnet"
    rerank_full: int | None = None

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
        """How many pairs are scored at most, on maps of any size."""
        return 0 if self.method == "superglobal" else self.rerank

    @property
    def full_pairs(self) -> int:
        """How many of them are scored at full size at most."""
        return self.pairs if self.rerank_full is None else min(self.rerank_full, self.pairs)

    def pooled_pairs(self, candidates: int) -> int:
        """How many of that many candidates are scored on pooled maps first: none where all come to full size."""
        pairs = min(self.pairs, candidates)
        return pairs if self.full_pairs < pairs else 0

    @property
    def depth(self) -> int:
        """How many images global search has to find."""
        return max(self.top_k, self.rerank, self.refinement.shortlist if self.refinement else 0)


@dataclass(frozen=True)
class Ranked:
    """The ranking by similarity, how many pairs of it will be scored in full, and seconds of work by stage so far.

    `exact` is whether all images were searched, or candidates of an approximate index.
    """

    before: Ranking
    pairs: int
    seconds: dict[str, float]
    exact: bool = True


@dataclass(frozen=True)
class Scored:
    """Pairs that were scored: rows of the collection and scores (n,) float32."""

    rows: list[int]
    scores: Array


@dataclass(frozen=True)
class CoarselyScored:
    """The same on pooled maps: no pair scores as published."""

    rows: list[int]
    scores: Array


Step = TypeVar("Step", Scored, CoarselyScored)


@dataclass(frozen=True)
class Found:
    """A query's outcome: the ranking by similarity, the final one, and what each stage took in seconds.

    `exact` is as in `Ranked`.
    """

    before: Ranking
    ranking: Ranking
    seconds: dict[str, float]
    exact: bool = True


Steps = Generator[Ranked | CoarselyScored | Scored | Found, None, None]


Batches = Generator[tuple[list[int], Array], None, None]  # rows and their pair scores (n,) float32, step by step


class Searchable(Protocol):
    """Images numbered through, wherever they are."""

    def search(self, descriptor: Array, k: int, among: Array | None) -> tuple[Ranking, bool]:
        """The `k` images most similar to a descriptor (2048,) float32, as `DescriptorIndex.search` ranks them.

        And whether all were looked at, or only candidates of an approximate index.
        """

    def descriptors(self, rows: Array) -> Array:
        """(n, 2048) float32 of rows (n,) int64."""

    def score_batches(
        self, query: Features, rows: Sequence[int], is_open: Callable[[int], bool], coarse: bool
    ) -> Batches:
        """Pair scores of a query and rows, see `Engines.score_batches`; `coarse` on pooled maps, as the query's."""


class LocalCollection(Closing):
    """A collection searched by this process. Neither it nor the retriever is closed with this."""

    def __init__(self, retriever: Engines, collection: Collection, approximate: Approximate | None = None) -> None:
        self._retriever, self._collection, self._approximate = retriever, collection, approximate
        self._descriptors = collection.descriptors
        self._index = DescriptorIndex(self._descriptors)

    def search(self, descriptor: Array, k: int, among: Array | None) -> tuple[Ranking, bool]:
        proposed = self._proposed(descriptor, k) if among is None else None
        return self._index.search(descriptor, k, among if proposed is None else proposed), proposed is None

    def _proposed(self, descriptor: Array, depth: int) -> Array | None:
        """Candidates (c,) int64 for the best `depth`, ascending; None where all are to be searched."""
        if self._approximate is None or not self._approximate.reaches(depth):
            return None
        proposed = self._approximate.propose(descriptor)
        return proposed if len(proposed) >= depth else None

    def descriptors(self, rows: Array) -> Array:
        return self._descriptors[rows]

    def score_batches(
        self, query: Features, rows: Sequence[int], is_open: Callable[[int], bool], coarse: bool
    ) -> Batches:
        collection = with_pooled_maps(self._collection) if coarse else self._collection
        return self._retriever.score_batches(query, collection, rows, is_open)

    def close(self) -> None:
        self._index.close()


class Searcher(Closing):
    """A collection laid out for search, and the retriever that scores pairs of it. Neither is closed with it."""

    def __init__(self, retriever: Engines, collection: Collection, approximate: Approximate | None = None) -> None:
        """
        Args:
            approximate: what finds candidates for global search; None for exact search always.
        """
        self._here = LocalCollection(retriever, collection, approximate)

    def find(
        self,
        query: Features,
        plan: Plan,
        done: Callable[[int, int], None] = lambda _n, _of: None,
        among: Array | None = None,
        leave_out: int | None = None,
    ) -> Found:
        """The best `plan.depth` images for a query, of which `plan.top_k` were asked for.

        Args:
            done: `done(n, of)` is called after each n pairs, of so many at most, on maps of either size.
            among, leave_out: see `steps_in`.
        """
        pairs = 0
        for step in self.steps(query, plan, among, leave_out):
            match step:
                case Ranked(before):
                    pairs = plan.pooled_pairs(len(before.rows)) + step.pairs
                case Scored(rows) | CoarselyScored(rows):
                    done(len(rows), pairs)
        assert isinstance(step, Found)  # the last
        return step

    def steps(self, query: Features, plan: Plan, among: Array | None = None, leave_out: int | None = None) -> Steps:
        """What `find` does, see `steps_in`."""
        return steps_in(self._here, query, plan, among, leave_out)

    def close(self) -> None:
        self._here.close()


def steps_in(
    searched: Searchable, query: Features, plan: Plan, among: Array | None = None, leave_out: int | None = None
) -> Steps:
    """A search, a piece of work a step, so that steps for several queries can take turns on one thread.

    Args:
        among: rows (n,) int64 to search, ascending; None for all.
        leave_out: a row that is no result: the query itself, where it is of the collection.
    """
    stages = Stages()
    with stages.timed("global"):
        before, exact = searched.search(query.descriptor, plan.depth + (leave_out is not None), among)
        if leave_out is not None:
            before = before.without(np.array([leave_out])).first(plan.depth)
    candidates = len(before.rows)
    yield Ranked(before, min(plan.full_pairs, candidates), dict(stages.seconds), exact)
    with stages.timed("rerank"):
        ranking = refined(searched, query, before, plan)
    if coarse := plan.pooled_pairs(candidates):
        with stages.timed("pooled"):
            small, pairs = pooled(query), EarlyStopping(ranking.first(coarse), coarse)
        batches = searched.score_batches(small, pairs.rows, pairs.is_needed, coarse=True)
        yield from run(pairs, batches, "pooled", CoarselyScored, stages)
        ranking = ranking.coarsely_reranked(pairs.scores)
    pairs = EarlyStopping(ranking.first(plan.full_pairs), plan.top_k)
    batches = searched.score_batches(query, pairs.rows, pairs.is_needed, coarse=False)
    yield from run(pairs, batches, "rerank", Scored, stages)
    yield Found(before, ranking.reranked(pairs.scores), dict(stages.seconds), exact)


def run(
    pairs: EarlyStopping, batches: Batches, stage: str, step: type[Step], stages: Stages
) -> Generator[Step, None, None]:
    """Score the pairs, batch by batch."""
    with contextlib.closing(batches):
        while True:
            with stages.timed(stage):
                batch = next(batches, None)
            if batch is None:
                return
            pairs.add(*batch)
            yield step(*batch)


def refined(searched: Searchable, query: Features, ranking: Ranking, plan: Plan) -> Ranking:
    """A ranking by similarity in the order whose first `plan.pairs` images are to be scored."""
    how = plan.refinement
    if how is None or not len(ranking.rows):
        return ranking
    shortlist = searched.descriptors(ranking.rows[: how.shortlist])
    return ranking.refined_by(refined_scores(query.descriptor, shortlist, how))


class EarlyStopping:
    """Scores of pairs so far. A pair is skipped once even a perfect score (1.0) could not lift it into the top k."""

    def __init__(self, candidates: Ranking, k: int) -> None:
        self.rows = candidates.rows.tolist()
        best = final_scores(candidates.global_similarities, np.ones(len(self.rows), np.float32))
        self._similarities = dict(zip(self.rows, candidates.global_similarities, strict=True))
        self._most = dict(zip(self.rows, best.tolist(), strict=True))
        self._scores = dict.fromkeys(self.rows, np.nan)
        self._k, self._best = k, list[float]()  # the k best final scores, ascending

    @property
    def scores(self) -> Array:
        """(n,) float32 in the order of the candidates, NaN for skipped pairs."""
        return np.array(list(self._scores.values()), np.float32)

    def is_needed(self, row: int) -> bool:
        return len(self._best) < self._k or self._most[row] >= self._best[0]

    def add(self, rows: Sequence[int], scores: Array) -> None:
        self._scores |= zip(rows, scores.tolist(), strict=True)
        found = final_scores(np.array([self._similarities[row] for row in rows]), scores).tolist()
        self._best = sorted([*self._best, *found])[-self._k :]


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
