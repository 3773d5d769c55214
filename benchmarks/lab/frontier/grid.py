"""Axes of the frontier as plain lists, and the points of their grid."""

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


# precision -> map format -> image sizes to try
CHEAPER: dict[str, dict[str, tuple[int, ...]]] = {
    "int8": {"float16": SIDES_PX, "coded:24": SIDES_PX, "coded:16": SIDES_PX[:2]},
    "bf16": {"float16": SIDES_PX[:-1], "coded:24": SIDES_PX[:-1]},
}
PUBLISHED = {"fp32": ("float16",)}  # only at a data set's largest size, as the baseline of all other points


def arithmetic(side_px: int, largest: bool = True) -> dict[str, tuple[str, ...]]:
    """Return the precisions and map formats to try at a size; `largest` if it is the data set's largest."""
    tried = {
        precision: tuple(maps for maps, sides_px in kinds.items() if side_px in sides_px)
        for precision, kinds in CHEAPER.items()
    }
    return {precision: maps for precision, maps in tried.items() if maps} | (PUBLISHED if largest else {})


@dataclass(frozen=True)
class Point:
    """A configuration of indexing and searching.

    Attributes:
        descriptor: one of `DESCRIPTOR_NAMES`.
        scales: scales of `IMAGE_SCALES` that the descriptor combines.
        max_side_px: longest side of an image.
        precision: precision of the engines.
        maps: map format of the gallery.
        method, shortlist, fine: see `Plan`; `shortlist` 0 means no reranking.
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
    """Return True unless the plan's `rerank_full` has no effect."""
    return plan.rerank_full is None or (plan.method != "superglobal" and plan.rerank_full < plan.rerank)


def sides(longest_px: int) -> tuple[int, ...]:
    """Return the size limits below this longest side, and the next larger one: larger limits change nothing."""
    below = [side for side in SIDES_PX if side < longest_px]
    return (*below, *SIDES_PX[len(below) : len(below) + 1])
