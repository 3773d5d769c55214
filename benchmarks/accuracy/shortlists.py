"""Shortlists of a query for each length and setup: the rows to score, and the final rankings."""

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
    """Candidates in the order that is known so far, each list whole: its first few are its shortlist.

    Attributes:
        candidates: by shortlist length and setup, ignored images left out.
        plans: how a shortlist is reranked, by its length.
    """

    candidates: Mapping[Case, Ranking]
    plans: Mapping[int, Plan]

    @classmethod
    def of(
        cls, ranking: Ranking, query: Array, descriptors: Array, truth: GroundTruth, plans: Mapping[int, Plan]
    ) -> Shortlists:
        """Those of a ranking by similarity, refined where SuperGlobal takes part.

        As published, a list is refined once for all setups, before their ignored images leave it; pairs are scored on a
        shortlist of each setup's own.

        Args:
            query: its descriptor (D,); `descriptors` (n, D) are the database's.
        """

        @cache
        def refined(how: Refinement | None) -> Ranking:
            return rerank(query, ranking, descriptors, how) if how else ranking

        lists = {k: refined(plan.refinement) for k, plan in plans.items()}
        without = {(k, setup): listed.without(ignored(truth, setup)) for k, listed in lists.items() for setup in SETUPS}
        return cls(without, plans)

    def planned(self, plans: Mapping[int, Plan]) -> Shortlists:
        """The same candidates, of the lengths that are planned, to be scored by other plans of the same refinement."""
        return Shortlists({case: found for case, found in self.candidates.items() if case[0] in plans}, plans)

    @property
    def rough_rows(self) -> list[int]:
        """What is looked at on pooled maps, ascending."""
        return self._first(self._rough_count)

    def looked_at(self, pooled_scores: Scores) -> Shortlists:
        """In the order that looks on pooled maps, those at `rough_rows` at least, put them in."""

        def ordered(case: Case, listed: Ranking) -> Ranking:
            return listed.coarsely_reranked(scored(listed, pooled_scores, self._rough_count(case[0], listed)))

        return replace(self, candidates={case: ordered(case, found) for case, found in self.candidates.items()})

    @property
    def rows(self) -> list[int]:
        """What is scored in full, ascending."""
        return self._first(self._full_count)

    def reranked(self, pair_scores: Scores) -> dict[Case, Ranking]:
        """The final rankings, by pair scores at `rows` at least."""
        return {
            case: found.reranked(scored(found, pair_scores, self._full_count(case[0], found)))
            for case, found in self.candidates.items()
        }

    def _rough_count(self, length: int, listed: Ranking) -> int:
        return self.plans[length].pooled_pairs(len(listed.rows))

    def _full_count(self, length: int, _: Ranking) -> int:
        return self.plans[length].full_pairs

    def _first(self, count: Callable[[int, Ranking], int]) -> list[int]:
        firsts = (found.rows[: count(length, found)].tolist() for (length, _), found in self.candidates.items())
        return sorted({row for first in firsts for row in first})


def scored(listed: Ranking, scores: Scores, count: int) -> Array:
    """Scores (count,) float32 of the first candidates of a list."""
    return np.array([scores[row] for row in listed.rows[:count].tolist()], np.float32)
