"""Axes of the frontier as plain lists, and the points of their grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import get_args

from cvnet_engine.engine.geometry import DESCRIPTOR_NAMES, IMAGE_SCALES
from cvnet_engine.engine.presets import Preset
from cvnet_engine.engine.retrieval.searcher import Plan, RerankWith

SIDES_PX = (384, 512, 640, 768, 1024)
SCALES = (IMAGE_SCALES, IMAGE_SCALES[:2], (1.0,))
DESCRIPTORS = tuple(DESCRIPTOR_NAMES)
METHODS: tuple[RerankWith, ...] = get_args(RerankWith)
SHORTLISTS = (20, 50, 100)
RERANK_FULL = (None, 0, 10, 20, 30, 50)

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


def sides(longest_px: int) -> tuple[int, ...]:
    """Return the size limits below this longest side, and the next larger one: larger limits change nothing."""
    below = [side for side in SIDES_PX if side < longest_px]
    return (*below, *SIDES_PX[len(below) : len(below) + 1])


def plans(method: RerankWith) -> Iterator[Plan]:
    """Yield the plans of a reranking method, without those whose `rerank_full` has no effect."""
    for shortlist, full in product(SHORTLISTS, RERANK_FULL):
        if full is None or (method != "superglobal" and full < shortlist):
            yield Plan(rerank=shortlist, method=method, rerank_full=full)


@dataclass(frozen=True)
class Point:
    """A configuration of indexing and searching.

    Attributes:
        descriptor: one of `DESCRIPTOR_NAMES`.
        scales: scales of `IMAGE_SCALES` that the descriptor combines.
        max_side_px: longest side of an image.
        precision: precision of the engines.
        maps: map format of the gallery.
        method, shortlist, rerank_full: see `Plan`; `shortlist` 0 means no reranking.
    """

    descriptor: str
    scales: tuple[float, ...]
    max_side_px: int
    precision: str
    maps: str
    method: RerankWith
    shortlist: int
    rerank_full: int | None

    @classmethod
    def of_preset(cls, preset: Preset, largest_px: int) -> Point:
        """Return the point of a preset; a size limit beyond the data set's images is lowered to `largest_px`."""
        side = min(preset.max_side_px or largest_px, largest_px)
        index = "cvnet", preset.scales, side, preset.precision, preset.maps
        return cls(*index, preset.method, preset.rerank, preset.rerank_full)

    @property
    def plan(self) -> Plan:
        return Plan(rerank=self.shortlist, method=self.method, rerank_full=self.rerank_full)

    def __str__(self) -> str:
        """A short name; settings as published are left out."""
        scales = {3: "", 2: ", 2 scales", 1: ", 1 scale"}[len(self.scales)]
        descriptor = "" if self.descriptor == "cvnet" else f"{self.descriptor} "
        index = f"{descriptor}{self.max_side_px} px {self.precision} {self.maps}{scales}"
        if not self.shortlist:
            return f"{index}, no reranking"
        method = "" if self.method == "cvnet" else f" by {self.method}"
        full = "" if self.rerank_full is None else f", {self.rerank_full} in full"
        return f"{index}, best {self.shortlist}{method}{full}"
