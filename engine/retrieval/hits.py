"""A ranking's images, with all that is known of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cvnet_engine.engine.retrieval.ranking import Ranking


@dataclass(frozen=True)
class Hit:
    """An image in a ranking.

    Attributes:
        rank: from 1.
        row: of the collection.
        score: what the ranking is by.
        similarity: of the descriptors.
        refined: SuperGlobal's similarity, where it took part.
        rerank_score: the pair score, where the pair was scored.
        pooled_score: the pair score on pooled maps, where there was such a rough look.
        before: the rank in an earlier order, from 1, where it was in that.
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
