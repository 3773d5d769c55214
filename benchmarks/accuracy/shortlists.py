"""Shortlists of a query per length and setup: the rows to score, and the final rankings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from cvnet_engine.benchmarks.accuracy.dataset import GroundTruth
from cvnet_engine.benchmarks.accuracy.protocol import SETUPS, ignored
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.searcher import Plan
from cvnet_engine.engine.retrieval.superglobal import Refinement, rerank

Case = tuple[int, str]  # shortlist length and setup
Scores = Mapping[int, float]  # by database row


@dataclass(frozen=True)
class Shortlists:
    """Candidate lists per shortlist length and setup; the first candidates of a list are its shortlist.

    Attributes:
        candidates: (shortlist length, setup) -> ranking without ignored images.
        plans: shortlist length -> how to rerank it.
    """

    candidates: Mapping[Case, Ranking]
    plans: Mapping[int, Plan]

    @classmethod
    def of(
        cls, ranking: Ranking, query: Array, descriptors: Array, truth: GroundTruth, plans: Mapping[int, Plan]
    ) -> Shortlists:
        """Build the lists from a ranking by similarity, refined first if a plan uses SuperGlobal.

        As published, a list is refined once for all setups, before ignored images are removed. For pair scores, each
        setup has its own shortlist.

        Args:
            query: descriptor (D,) of the query.
            descriptors: (n, D) descriptors of the database.
        """

        @cache
        def refined(how: Refinement | None) -> Ranking:
            return rerank(query, ranking, descriptors, how) if how else ranking

        lists = {k: refined(plan.refinement) for k, plan in plans.items()}
        without = {(k, setup): listed.without(ignored(truth, setup)) for k, listed in lists.items() for setup in SETUPS}
        return cls(without, plans)

    def planned(self, plans: Mapping[int, Plan]) -> Shortlists:
        """Return the same candidates, for the lengths in `plans` only; the plans must use the same refinement."""
        return Shortlists({case: found for case, found in self.candidates.items() if case[0] in plans}, plans)

    @property
    def rough_rows(self) -> list[int]:
        """Rows to score at coarse resolution, ascending."""
        return self._first(self._rough_count)

    def looked_at(self, coarse_scores: Scores) -> Shortlists:
        """Return the lists reordered by coarse scores, which must include all `rough_rows`."""

        def ordered(case: Case, listed: Ranking) -> Ranking:
            return listed.coarsely_reranked(scored(listed, coarse_scores, self._rough_count(case[0], listed)))

        return replace(self, candidates={case: ordered(case, found) for case, found in self.candidates.items()})

    @property
    def rows(self) -> list[int]:
        """Rows to score at full resolution, ascending."""
        return self._first(self._full_count)

    def reranked(self, pair_scores: Scores) -> dict[Case, Ranking]:
        """Return the final rankings by pair scores, which must include all `rows`."""
        return {
            case: found.reranked(scored(found, pair_scores, self._full_count(case[0], found)))
            for case, found in self.candidates.items()
        }

    def _rough_count(self, length: int, listed: Ranking) -> int:
        return self.plans[length].coarse_pairs(len(listed.rows))

    def _full_count(self, length: int, _: Ranking) -> int:
        return self.plans[length].full_pairs

    def _first(self, count: Callable[[int, Ranking], int]) -> list[int]:
        firsts = (found.rows[: count(length, found)].tolist() for (length, _), found in self.candidates.items())
        return sorted({row for first in firsts for row in first})


def scored(listed: Ranking, scores: Scores, count: int) -> Array:
    """Return the scores (count,) float32 of the first candidates of a list."""
    return np.array([scores[row] for row in listed.rows[:count].tolist()], np.float32)
