"""What a page shows: queries with their rankings, and tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.tables import Table
from engine.retrieval.ranking import Ranking

Verdict = Literal["easy", "hard", "junk", "wrong"]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Hit:
    """One row of a ranking. `rank` and `before` (its rank before reranking) count from 1.

    `rerank_score` is of a pair scored in full, `pooled_score` of one scored on pooled maps.
    """

    path: str
    rank: int
    score: float
    similarity: float
    rerank_score: float | None = None
    verdict: Verdict | None = None
    before: int | None = None
    pooled_score: float | None = None


@dataclass(frozen=True)
class Query:
    """A query image and its ranking; `bbx` is x1, y1, x2, y2 in pixels of the upright image."""

    path: str
    bbx: Box | None
    hits: tuple[Hit, ...]
    note: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report. `banner` is a plain warning shown above everything else."""

    title: str
    lead: str
    banner: str | None
    queries: tuple[Query, ...]
    tables: tuple[Table, ...]
    footer: str


def hits(
    ranking: Ranking,
    before: Ranking | None,
    paths: Sequence[Path],
    verdict: Callable[[int], Verdict | None],
    count: int,
) -> tuple[Hit, ...]:
    """The first `count` results of a ranking, each with its verdict and the rank it had before reranking, if it was."""
    ranks_before = {row: rank for rank, row in enumerate(before.rows.tolist(), 1)} if before else {}
    top = ranking.first(count)
    columns = (top.rows, top.scores, top.similarities, top.pair_scores, top.pooled_scores)
    return tuple(
        Hit(
            path=str(paths[row]),
            rank=rank,
            score=score,
            similarity=similarity,
            rerank_score=known(pair_score),
            pooled_score=known(pooled_score),
            verdict=verdict(row),
            before=ranks_before.get(row),
        )
        for rank, (row, score, similarity, pair_score, pooled_score) in enumerate(
            zip(*(c.tolist() for c in columns), strict=True), 1
        )
    )


def known(value: float) -> float | None:
    return None if value != value else value  # NaN where it was not computed
