"""Axes of the frontier as plain lists, and the points that they span."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from cvnet_engine.engine.geometry import DESCRIPTOR_NAMES, IMAGE_SCALES
from cvnet_engine.engine.retrieval.searcher import Plan, RerankWith

SIDES_PX = (384, 512, 640, 768, 1024)
SCALES = (IMAGE_SCALES, IMAGE_SCALES[:2], (1.0,))
DESCRIPTORS = tuple(DESCRIPTOR_NAMES)
METHODS: tuple[RerankWith, ...] = get_args(RerankWith)
SHORTLISTS = (20, 50, 100)
FINE = (None, 0, 10, 20, 30, 50)


# precision -> ways to keep maps -> the sides that it is tried at
CHEAPER: dict[str, dict[str, tuple[int, ...]]] = {
    "int8": {"float16": SIDES_PX, "coded:24": SIDES_PX, "coded:16": SIDES_PX[:2]},
    "bf16": {"float16": SIDES_PX[:-1], "coded:24": SIDES_PX[:-1]},
}
PUBLISHED = {"fp32": ("float16",)}  # tried at the largest side of a data set, for all else to be held against


def arithmetic(side_px: int, largest: bool = True) -> dict[str, tuple[str, ...]]:
    """Each precision that is tried at a side, the `largest` of a data set or not, and the ways to keep maps."""
    tried = {
        precision: tuple(maps for maps, sides_px in kinds.items() if side_px in sides_px)
        for precision, kinds in CHEAPER.items()
    }
    return {precision: maps for precision, maps in tried.items() if maps} | (PUBLISHED if largest else {})


@dataclass(frozen=True)
class Point:
    """One way to index and to search.

    Attributes:
        descriptor: one of `DESCRIPTOR_NAMES`.
        scales: those of `IMAGE_SCALES` that the descriptor is made of.
        max_side_px: longest side of an image.
        precision: of the engines.
        maps: how a gallery keeps them.
        method, shortlist, fine: see `Plan`; no shortlist is no reranking.
    """

    descriptor: str
    scales: tuple[float, ...]
    max_side_px: int
    precision: str
    maps: str
    method: RerankWith
    shortlist: int
    fine: int | None

    @property
    def plan(self) -> Plan:
        return Plan(rerank=self.shortlist, method=self.method, rerank_full=self.fine)


def is_distinct(plan: Plan) -> bool:
    """Whether it says `fine` only where that makes another plan of it."""
    return plan.rerank_full is None or (plan.method != "superglobal" and plan.rerank_full < plan.rerank)


def sides(longest_px: int) -> tuple[int, ...]:
    """The limits that tell images of up to this longest side apart: those below it, and the first above."""
    below = [side for side in SIDES_PX if side < longest_px]
    return (*below, *SIDES_PX[len(below) : len(below) + 1])
