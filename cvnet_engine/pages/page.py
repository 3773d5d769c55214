"""Contents of HTML pages: queries with their rankings, tables, and groups of duplicates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cvnet_engine.benchmarks.tables import Table
from cvnet_engine.engine.images import Box
from cvnet_engine.engine.retrieval.ranking import Hit

Verdict = Literal["easy", "hard", "junk", "wrong"]


@dataclass(frozen=True)
class Query:
    """A query image and its ranking.

    Attributes:
        path: of its file, or a name for it if `image` holds the bytes of one.
        verdicts: ground truth of a hit, by the row of the hit; empty if there is none.
    """

    path: str
    bbx: Box | None
    hits: tuple[Hit, ...]
    note: str = ""
    image: bytes | None = None
    verdicts: Mapping[int, Verdict] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """A whole report. `banner` is a plain warning shown above everything else."""

    title: str
    lead: str
    banner: str | None
    queries: tuple[Query, ...]
    tables: tuple[Table, ...]
    footer: str


@dataclass(frozen=True)
class Copy:
    """One image of a group: its file's bytes, and the image of the group that it is most like, with how much."""

    path: str
    size: int
    like: str | None = None
    similarity: float | None = None
    score: float | None = None


@dataclass(frozen=True)
class Copies:
    """Images of one photo, the largest file first."""

    images: tuple[Copy, ...]


@dataclass(frozen=True)
class DuplicatesPage:
    """Groups of equal files and of near-duplicates; `left_out` counts those that there is no room for."""

    lead: str
    banner: str | None
    exact: tuple[Copies, ...]
    similar: tuple[Copies, ...]
    left_out: int
    footer: str
    title: str = "Duplicates"
