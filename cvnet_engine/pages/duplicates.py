"""What the page of duplicates shows: groups of images, side by side."""

from __future__ import annotations

from dataclasses import dataclass


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
