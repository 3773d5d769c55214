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
class RankedQuery:
    """A query image and its ranking.

    Attributes:
        path: path of its file, or a caption if `image` has its bytes.
        bbx: x1, y1, x2, y2 in pixels of the upright image; None for the whole image.
        image: bytes of an image file; None to read `path`.
        verdicts: ground truth by the row of a hit; empty without ground truth.
    """

    path: str
    bbx: Box | None
    hits: tuple[Hit, ...]
    note: str = ""
    image: bytes | None = None
    verdicts: Mapping[int, Verdict] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """A report. `banner` is a warning shown above everything else."""

    title: str
    lead: str
    banner: str | None
    queries: tuple[RankedQuery, ...]
    tables: tuple[Table, ...]
    footer: str


@dataclass(frozen=True)
class Copy:
    """An image of a group of duplicates.

    Attributes:
        size: size of its file in bytes.
        like: path of the most similar image of the group, with `similarity` and pair `score`; None for equal files.
    """

    path: str
    size: int
    like: str | None = None
    similarity: float | None = None
    score: float | None = None


@dataclass(frozen=True)
class DuplicatesPage:
    """A report on duplicates: groups of images, the largest file first, and the number of groups left out."""

    lead: str
    banner: str | None
    exact: tuple[tuple[Copy, ...], ...]
    similar: tuple[tuple[Copy, ...], ...]
    left_out: int
    footer: str
    title: str = "Duplicates"
