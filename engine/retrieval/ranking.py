"""A ranking of a collection for one query, before and after reranking."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from cvnet_engine.engine.contract import Array

RERANK_WEIGHT = 0.5  # of a pair score beside the global similarity (CVNet's published evaluation)
POOLED_WEIGHT = 1.08  # of one on pooled maps, which foretells it: half of what `python -m training.mixing` finds


@dataclass(frozen=True)
class Ranking:
    """Rows of a collection, best first.

    Attributes:
        rows: (k,) int64.
        similarities: (k,) float32, of the descriptors.
        refined: (k,) float32, the similarity of descriptors refined by their neighbours, NaN where they were not.
        pair_scores: (k,) float32, NaN where the pair was not scored.
        pooled_scores: (k,) float32, pair scores on pooled maps, NaN where there are none.
    """

    rows: Array
    similarities: Array
    refined: Array
    pair_scores: Array
    pooled_scores: Array

    @classmethod
    def by_similarity(cls, similarities: Array, rows: Array | None = None) -> Ranking:
        """Every row of a collection by descending similarity; equals keep their order."""
        order = np.argsort(-similarities, kind="stable")
        rows = order if rows is None else rows[order]
        none = np.full(len(order), np.nan, np.float32)
        return cls(rows, similarities[order], none, none, none)

    @property
    def scores(self) -> Array:
        """(k,) float32: what the ranking is by, among images that are known as well."""
        pooled = np.asarray(POOLED_WEIGHT * np.nan_to_num(self.pooled_scores), np.float32)
        rough = self.global_similarities + pooled
        return np.where(np.isnan(self.pair_scores), rough, final_scores(self.global_similarities, self.pair_scores))

    @property
    def global_similarities(self) -> Array:
        """(k,) float32: the refined similarity where there is one."""
        return np.where(np.isnan(self.refined), self.similarities, self.refined)

    def refined_by(self, refined: Array) -> Ranking:
        """The first `len(refined)` rows ordered anew by refined similarity, the others behind them as they were."""
        return self._at_front(refined=refined)

    def roughly_reranked(self, pooled_scores: Array) -> Ranking:
        """The first `len(pooled_scores)` rows ordered anew with their pair scores on pooled maps, the others behind."""
        return self._at_front(pooled_scores=pooled_scores)

    def reranked(self, pair_scores: Array) -> Ranking:
        """The first `len(pair_scores)` rows ordered anew by their final score, the others behind them as they were.

        A row whose pair score is NaN, as it was not needed, goes behind those that have one.
        """
        scored = ~np.isnan(pair_scores)
        order = np.arange(len(self.rows))
        order[: len(scored)] = np.argsort(~scored, kind="stable")
        return self._take(order)._at_front(pair_scores=pair_scores[scored])

    def _at_front(self, **found: Array) -> Ranking:
        """The ranking with one of its columns known for the first rows, and these in the order of their scores."""
        ((name, values),) = found.items()
        k = len(values)
        column = np.concatenate([values, getattr(self, name)[k:]]).astype(np.float32)
        known = replace(self, **{name: column})
        order = np.arange(len(self.rows))
        order[:k] = np.argsort(-known.scores[:k], kind="stable")
        return known._take(order)

    def first(self, k: int) -> Ranking:
        return self._take(slice(k))

    def without(self, rows: Array) -> Ranking:
        """The ranking of all other rows."""
        return self._take(~np.isin(self.rows, rows))

    def _take(self, places: Array | slice) -> Ranking:
        return Ranking(*(getattr(self, column.name)[places] for column in fields(self)))


def final_scores(similarities: Array, pair_scores: Array) -> Array:
    """Global similarity, plus the weighted pair score where there is one."""
    return np.asarray(similarities + RERANK_WEIGHT * np.nan_to_num(pair_scores), np.float32)
