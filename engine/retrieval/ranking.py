"""A ranking of a collection for one query, before and after reranking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from cvnet_engine.engine.contract import Array

RERANK_WEIGHT = 0.5  # of a pair score beside the global similarity (CVNet's published evaluation)
POOLED_WEIGHT = 1.08  # of a pair score at coarse resolution: half of what `python -m training.mixing` fits
# Least similarity of near-duplicates. The demonstration model, 45 landmarks of 320 px: a photo and itself compressed,
# brightened or cropped to 0.95 of its sides, at least 0.95; two different photos of one building, at most 0.90.
NEAR_DUPLICATE = 0.95


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

    def coarsely_reranked(self, pooled_scores: Array) -> Ranking:
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


@dataclass(frozen=True)
class Hit:
    """An image of a ranking, with its scores.

    Attributes:
        rank: from 1.
        row: of the collection.
        score: the final score, which orders the ranking.
        similarity: of the descriptors.
        refined: SuperGlobal's similarity; None if the descriptor was not refined.
        rerank_score: the pair score at full resolution; None if the pair was not scored.
        pooled_score: the pair score at coarse resolution; None if the pair was not scored.
        before: rank from 1 in an earlier order; None if the image was not in it.
    """

    path: Path
    rank: int
    row: int
    score: float
    similarity: float
    refined: float | None
    rerank_score: float | None
    pooled_score: float | None
    before: int | None


def hits(ranking: Ranking, before: Iterable[int], paths: Sequence[Path]) -> tuple[Hit, ...]:
    """The images of a ranking, best first; `before` are rows of the collection in an earlier order."""
    ranks_before = {row: rank for rank, row in enumerate(before, 1)}
    similarities = (ranking.similarities, ranking.refined)
    columns = (ranking.rows, ranking.scores, *similarities, ranking.pair_scores, ranking.pooled_scores)
    return tuple(
        Hit(
            path=paths[row],
            rank=rank,
            row=row,
            score=score,
            similarity=similarity,
            refined=known(refined),
            rerank_score=known(pair_score),
            pooled_score=known(pooled_score),
            before=ranks_before.get(row),
        )
        for rank, (row, score, similarity, refined, pair_score, pooled_score) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), 1
        )
    )


def known(value: float) -> float | None:
    return None if value != value else value  # NaN where it was not computed


def near_duplicates(descriptors: Array) -> Array:
    """For each result, the place (k,) int64 of the best result that it is a near-duplicate of; its own if none is.

    Args:
        descriptors: (k, 2048) float32, unit norm, best result first.
    """
    alike = descriptors @ descriptors.T >= NEAR_DUPLICATE
    firsts = np.full(len(descriptors), -1)
    for place in range(len(descriptors)):
        if firsts[place] < 0:  # a near-duplicate of a better result starts no group
            firsts[alike[place] & (firsts < 0)] = place
    return firsts
