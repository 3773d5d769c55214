"""What a page shows: queries with their rankings, and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from cvnet_engine.benchmarks.tables import Table
from cvnet_engine.engine.retrieval import hits

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
    """A query image and its ranking.

    Attributes:
        path: of its file, or what it is called where `image` holds the bytes of one.
        bbx: x1, y1, x2, y2 in pixels of the upright image.
    """

    path: str
    bbx: Box | None
    hits: tuple[Hit, ...]
    note: str = ""
    image: bytes | None = None


@dataclass(frozen=True)
class Page:
    """A whole report. `banner` is a plain warning shown above everything else."""

    title: str
    lead: str
    banner: str | None
    queries: tuple[Query, ...]
    tables: tuple[Table, ...]
    footer: str


def judged(found: Iterable[hits.Hit], verdict: Callable[[int], Verdict | None] = lambda _: None) -> tuple[Hit, ...]:
    """Hits as a page shows them, each with the verdict on its row."""
    return tuple(
        Hit(
            path=str(hit.path),
            rank=hit.rank,
            score=hit.score,
            similarity=hit.similarity,
            rerank_score=hit.rerank_score,
            pooled_score=hit.pooled_score,
            verdict=verdict(hit.row),
            before=hit.before,
        )
        for hit in found
    )
