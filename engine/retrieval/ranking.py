"""A ranking of a collection for one query, before and after reranking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.contract import Array

RERANK_WEIGHT = 0.5  # of a pair score beside the global similarity (CVNet's published evaluation)


@dataclass(frozen=True)
class Ranking:
    """Rows of a collection, best first.

    Attributes:
        rows: (k,) int64.
        similarities: (k,) float32, of the descriptors.
        pair_scores: (k,) float32, NaN where the pair was not reranked.
    """

    rows: Array
    similarities: Array
    pair_scores: Array

    @classmethod
    def by_similarity(cls, similarities: Array, rows: Array | None = None) -> Ranking:
        """Every row of a collection by descending similarity; equals keep their order."""
        order = np.argsort(-similarities, kind="stable")
        rows = order if rows is None else rows[order]
        return cls(rows, similarities[order], np.full(len(order), np.nan, np.float32))

    @property
    def scores(self) -> Array:
        """(k,) float32: what the ranking is by."""
        return final_scores(self.similarities, self.pair_scores)

    def reranked(self, pair_scores: Array) -> Ranking:
        """The first `len(pair_scores)` rows ordered anew by their final score, the others behind them as they were."""
        k = len(pair_scores)
        order = np.arange(len(self.rows))
        order[:k] = np.argsort(-final_scores(self.similarities[:k], pair_scores), kind="stable")
        padded = np.concatenate([pair_scores, self.pair_scores[k:]]).astype(np.float32)
        return Ranking(self.rows[order], self.similarities[order], padded[order])

    def first(self, k: int) -> Ranking:
        return Ranking(self.rows[:k], self.similarities[:k], self.pair_scores[:k])

    def without(self, rows: Array) -> Ranking:
        """The ranking of all other rows."""
        kept = ~np.isin(self.rows, rows)
        return Ranking(self.rows[kept], self.similarities[kept], self.pair_scores[kept])


def final_scores(similarities: Array, pair_scores: Array) -> Array:
    """Global similarity, plus the weighted pair score where there is one."""
    return np.asarray(similarities + RERANK_WEIGHT * np.nan_to_num(pair_scores), np.float32)
