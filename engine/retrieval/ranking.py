"""A ranking of database images for one query, before and after reranking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from cvnet_engine.engine.contract import Array

RERANK_WEIGHT = 0.5  # weight of the pair score; the global similarity has weight 1 (CVNet's published evaluation)
COARSE_WEIGHT = 1.08  # weight of a pair score at coarse resolution: half of what `python -m training.mixing` fits
# Minimum similarity of near-duplicates. Measured with the demonstration model on 45 landmark photos of 320 px: a photo
# and a compressed, brightened or cropped (0.95 of its sides) copy have at least 0.95; two photos of one building at
# most 0.90.
NEAR_DUPLICATE = 0.95


@dataclass(frozen=True)
class Ranking:
    """Rows of a collection, best first.

    Attributes:
        rows: (k,) int64.
        similarities: (k,) float32, inner products of the descriptors.
        refined: (k,) float32, similarity after SuperGlobal's refinement, NaN for images that were not refined.
        pair_scores: (k,) float32, pair scores at full resolution, NaN for pairs that were not scored.
        coarse_scores: (k,) float32, pair scores at coarse resolution, NaN for pairs that were not scored.
    """

    rows: Array
    similarities: Array
    refined: Array
    pair_scores: Array
    coarse_scores: Array

    @classmethod
    def by_similarity(cls, similarities: Array, rows: Array | None = None) -> Ranking:
        """Rank rows (all rows of the collection by default) by descending similarity; ties keep their order."""
        order = np.argsort(-similarities, kind="stable")
        rows = order if rows is None else rows[order]
        none = np.full(len(order), np.nan, np.float32)
        return cls(rows, similarities[order], none, none, none)

    @property
    def scores(self) -> Array:
        """Scores (k,) float32 that order the ranking, comparable among images that passed the same stages."""
        coarse = np.asarray(COARSE_WEIGHT * np.nan_to_num(self.coarse_scores), np.float32)
        unscored = self.global_similarities + coarse
        return np.where(np.isnan(self.pair_scores), unscored, final_scores(self.global_similarities, self.pair_scores))

    @property
    def global_similarities(self) -> Array:
        """Similarities (k,) float32: the refined one if available, otherwise that of the descriptors."""
        return np.where(np.isnan(self.refined), self.similarities, self.refined)

    def refined_by(self, refined: Array) -> Ranking:
        """Sort the first `len(refined)` rows by refined similarity; the others keep their order."""
        return self._at_front(refined=refined)

    def coarsely_reranked(self, coarse_scores: Array) -> Ranking:
        """Sort the first `len(coarse_scores)` rows by coarse-resolution scores; the others keep their order."""
        return self._at_front(coarse_scores=coarse_scores)

    def reranked(self, pair_scores: Array) -> Ranking:
        """Sort the first `len(pair_scores)` rows by their final score; the others keep their order.

        Rows skipped by early stopping (pair score NaN) follow the scored ones.
        """
        scored = ~np.isnan(pair_scores)
        order = np.arange(len(self.rows))
        order[: len(scored)] = np.argsort(~scored, kind="stable")
        return self._take(order)._at_front(pair_scores=pair_scores[scored])

    def _at_front(self, **found: Array) -> Ranking:
        """Set one column of the first rows, given by name, and sort these rows by score."""
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
        """Return the ranking without `rows`."""
        return self._take(~np.isin(self.rows, rows))

    def _take(self, indices: Array | slice) -> Ranking:
        return Ranking(*(getattr(self, column.name)[indices] for column in fields(self)))


def final_scores(similarities: Array, pair_scores: Array) -> Array:
    """Return the global similarity plus the weighted pair score; a NaN pair score counts as 0."""
    return np.asarray(similarities + RERANK_WEIGHT * np.nan_to_num(pair_scores), np.float32)


@dataclass(frozen=True)
class Hit:
    """An image of a ranking, with its scores.

    Attributes:
        rank: from 1.
        row: of the collection.
        score: the final score, which orders the ranking.
        similarity: inner product of the descriptors.
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
    """Return the images of a ranking, best first; `before` lists rows of the collection in an earlier order."""
    ranks_before = {row: rank for rank, row in enumerate(before, 1)}
    similarities = (ranking.similarities, ranking.refined)
    columns = (ranking.rows, ranking.scores, *similarities, ranking.pair_scores, ranking.coarse_scores)
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
    return None if value != value else value  # NaN: not computed


def near_duplicates(descriptors: Array) -> Array:
    """Return, for each result, the index (k,) int64 of the first result of its near-duplicate group.

    Args:
        descriptors: (k, 2048) float32, unit norm, best result first.
    """
    alike = descriptors @ descriptors.T >= NEAR_DUPLICATE
    firsts = np.full(len(descriptors), -1)
    for index in range(len(descriptors)):
        if firsts[index] < 0:  # not yet in the group of a better result
            firsts[alike[index] & (firsts < 0)] = index
    return firsts
