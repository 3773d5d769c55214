"""Search of a collection for one query: global search, then reranking, as a sequence of steps."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

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
    """Settings of one search.

    Attributes:
        top_k: number of results.
        rerank: number of candidates to rerank.
        method: `cvnet` reranks with pair scores, `superglobal` with refined descriptors. `both` orders SuperGlobal's
            published shortlist (400 images) by refined descriptors, then reranks the best `rerank` with pair scores.
        rerank_full: coarse-to-fine reranking: score all candidates at half resolution, then only this many at full
            resolution. None, as published, scores all at full resolution.
    """

    top_k: int = 10
    rerank: int = 100
    method: RerankWith = "cvnet"
    rerank_full: int | None = None

    @property
    def refinement(self) -> Refinement | None:
        """SuperGlobal's settings; None for method `cvnet`."""
        match self.method:
            case "cvnet":
                return None
            case "superglobal":
                return Refinement(shortlist=self.rerank)
            case "both":
                return Refinement()

    @property
    def pairs(self) -> int:
        """Maximum number of candidates with a pair score, at either resolution."""
        return 0 if self.method == "superglobal" else self.rerank

    @property
    def full_pairs(self) -> int:
        """Maximum number of candidates scored at full resolution."""
        return self.pairs if self.rerank_full is None else min(self.rerank_full, self.pairs)

    def coarse_pairs(self, candidates: int) -> int:
        """Return how many of `candidates` are scored at coarse resolution; 0 if all are scored at full resolution."""
        pairs = min(self.pairs, candidates)
        return pairs if self.full_pairs < pairs else 0

    @property
    def depth(self) -> int:
        """Number of images that global search must return."""
        return max(self.top_k, self.rerank, self.refinement.shortlist if self.refinement else 0)


@dataclass(frozen=True)
class Ranked:
    """First step: the ranking by global similarity.

    Attributes:
        pairs: number of candidates to score at full resolution.
        seconds: time so far, by stage.
        exact: True if all images were compared, False if only candidates of an approximate index.
    """

    before: Ranking
    pairs: int
    seconds: dict[str, float]
    exact: bool = True


@dataclass(frozen=True)
class Scored:
    """Step of a scored batch: rows of the collection and pair scores (n,) float32, at coarse or full resolution."""

    rows: list[int]
    scores: Array
    coarse: bool = False


@dataclass(frozen=True)
class Reranked:
    """Last step: the result of the search.

    Attributes:
        before: the ranking by global similarity.
        ranking: the final ranking.
        seconds: time of each stage.
        exact: see `Ranked`.
    """

    before: Ranking
    ranking: Ranking
    seconds: dict[str, float]
    exact: bool = True


Steps = Generator[Ranked | Scored | Reranked, None, None]
Batches = Generator[tuple[list[int], Array], None, None]  # rows and their pair scores (n,) float32


class Searchable(Protocol):
    """Interface of a collection with numbered rows, searched in this process or by shard workers."""

    def search(self, descriptor: Array, k: int, selection: Array | None) -> tuple[Ranking, bool]:
        """Return the `k` images most similar to a descriptor (2048,) float32, ranked as by `DescriptorIndex.search`.

        The second value is True if all images were compared, False if only candidates of an approximate index.
        """

    def descriptors(self, rows: Array) -> Array:
        """Return the descriptors (n, 2048) float32 of rows (n,) int64."""

    def score_batches(
        self, query: Features, rows: Sequence[int], is_needed: Callable[[int], bool], coarse: bool
    ) -> Batches:
        """Yield pair scores of a query and rows, see `Engines.score_batches`.

        Args:
            coarse: score at coarse resolution; the maps of `query` are already at that resolution.
        """


class LocalCollection(Closing):
    """A collection searched in this process. `close` leaves the collection and the engines open."""

    def __init__(self, engines: Engines, collection: Collection, approximate: Approximate | None = None) -> None:
        self._engines, self._collection, self._approximate = engines, collection, approximate
        self._descriptors = collection.descriptors
        self._index = DescriptorIndex(self._descriptors)

    def search(self, descriptor: Array, k: int, selection: Array | None) -> tuple[Ranking, bool]:
        proposed = self._proposed(descriptor, k) if selection is None else None
        return self._index.search(descriptor, k, selection if proposed is None else proposed), proposed is None

    def _proposed(self, descriptor: Array, depth: int) -> Array | None:
        """Return candidate rows (c,) int64 for the best `depth`, ascending; None to search all rows."""
        if self._approximate is None or not self._approximate.reaches(depth):
            return None
        proposed = self._approximate.propose(descriptor)
        return proposed if len(proposed) >= depth else None

    def descriptors(self, rows: Array) -> Array:
        return self._descriptors[rows]

    def score_batches(
        self, query: Features, rows: Sequence[int], is_needed: Callable[[int], bool], coarse: bool
    ) -> Batches:
        collection = with_pooled_maps(self._collection) if coarse else self._collection
        return self._engines.score_batches(query, collection, rows, is_needed)

    def close(self) -> None:
        self._index.close()


class Searcher(Closing):
    """Search a collection in this process. `close` leaves the collection and the engines open."""

    def __init__(self, engines: Engines, collection: Collection, approximate: Approximate | None = None) -> None:
        """
        Args:
            approximate: index that proposes candidates for global search; None for exact search.
        """
        self._here = LocalCollection(engines, collection, approximate)

    def find(
        self,
        query: Features,
        plan: Plan,
        done: Callable[[int, int], None] = lambda _n, _of: None,
        selection: Array | None = None,
        own_row: int | None = None,
    ) -> Reranked:
        """Return the ranking of a query's best `plan.depth` images; only the first `plan.top_k` are results.

        Args:
            done: called as `done(n, of)` after each n scored pairs, of `of` at most, at either resolution.
            selection, own_row: see `steps_in`.
        """
        pairs = 0
        for step in self.steps(query, plan, selection, own_row):
            match step:
                case Ranked(before):
                    pairs = plan.coarse_pairs(len(before.rows)) + step.pairs
                case Scored(rows):
                    done(len(rows), pairs)
        assert isinstance(step, Reranked)  # the last
        return step

    def steps(self, query: Features, plan: Plan, selection: Array | None = None, own_row: int | None = None) -> Steps:
        """Run the search of `find` step by step, see `steps_in`."""
        return steps_in(self._here, query, plan, selection, own_row)

    def close(self) -> None:
        self._here.close()


def steps_in(
    searched: Searchable, query: Features, plan: Plan, selection: Array | None = None, own_row: int | None = None
) -> Steps:
    """Run a search step by step, so that one thread can alternate between several queries.

    Args:
        selection: rows (n,) int64 to search, ascending; None for all.
        own_row: row to exclude from the results: the query itself, if it is in the collection.
    """
    stages = Stages()
    with stages.timed("global"):
        before, exact = searched.search(query.descriptor, plan.depth + (own_row is not None), selection)
        if own_row is not None:
            before = before.without(np.array([own_row])).first(plan.depth)
    candidates = len(before.rows)
    yield Ranked(before, min(plan.full_pairs, candidates), dict(stages.seconds), exact)
    ranking = before
    if candidates and (how := plan.refinement):
        with stages.timed("rerank"):
            shortlist = searched.descriptors(before.rows[: how.shortlist])
            ranking = before.refined_by(refined_scores(query.descriptor, shortlist, how))
    if count := plan.coarse_pairs(candidates):
        with stages.timed("pooled"):
            small = pooled(query)
        scores = yield from score_pairs(searched, small, ranking.first(count), count, stages, coarse=True)
        ranking = ranking.coarsely_reranked(scores)
    scores = yield from score_pairs(searched, query, ranking.first(plan.full_pairs), plan.top_k, stages)
    yield Reranked(before, ranking.reranked(scores), dict(stages.seconds), exact)


def score_pairs(
    searched: Searchable, query: Features, candidates: Ranking, k: int, stages: Stages, coarse: bool = False
) -> Generator[Scored, None, Array]:
    """Score candidates with early stopping for the top `k`, in a step per batch.

    Returns:
        Pair scores (n,) float32 in the order of the candidates, NaN for skipped ones.
    """
    pairs = EarlyStopping(candidates, k)
    with contextlib.closing(searched.score_batches(query, pairs.rows, pairs.is_needed, coarse)) as batches:
        while True:
            with stages.timed("pooled" if coarse else "rerank"):
                batch = next(batches, None)
            if batch is None:
                return pairs.scores
            pairs.add(*batch)
            yield Scored(*batch, coarse)


class EarlyStopping:
    """Pair scores so far. Skips a candidate once even a perfect pair score (1.0) could not lift it into the top k."""

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
    """Seconds of work by stage, without the caller's time between steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started
