"""A query against a collection: global search, then the reranking that was asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal

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

    def find(self, query: Features, plan: Plan, done: Callable[[int], None] = lambda _: None) -> Found:
        """The best `plan.depth` images for a query, of which `plan.top_k` were asked for.

        Args:
            done: `done(n)` is called after each n pairs.
        """
        started = time.perf_counter()
        before = self.rank(query, plan)
        searched = time.perf_counter()
        ranking = self.refine(query, before, plan)
        shortlist = ranking.rows[: plan.pairs].tolist()
        ranking = ranking.reranked(self._retriever.score_rows(query, self._collection, shortlist, done))
        seconds = {"global": searched - started, "rerank": time.perf_counter() - searched}
        return Found(before, ranking, seconds)

    def rank(self, query: Features, plan: Plan, among: Array | None = None) -> Ranking:
        """The best `plan.depth` images by similarity, of the rows `among` (n,) int64, ascending, where they are given.

        The first of the steps that `find` takes at once.
        """
        return self._index.search(query.descriptor, plan.depth, among)

    def refine(self, query: Features, ranking: Ranking, plan: Plan) -> Ranking:
        """A ranking by similarity in the order whose first `plan.pairs` images are to be scored: the second step."""
        if plan.refinement is None or not len(ranking.rows):
            return ranking
        return superglobal.rerank(query.descriptor, ranking, self._descriptors, plan.refinement)

    def score_batches(self, query: Features, rows: Sequence[int]) -> Generator[tuple[list[int], Array], None, None]:
        """Pair scores of rows, batch by batch: the third step, see `Retriever.score_batches`."""
        return self._retriever.score_batches(query, self._collection, rows)

    def close(self) -> None:
        self._index.close()
