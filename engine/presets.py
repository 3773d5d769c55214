"""Presets: how to build, index and search as published, for a balance of accuracy and cost, or for speed."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import CvnetError
from engine.geometry import IMAGE_SCALES
from engine.retrieval.searcher import RerankWith


@dataclass(frozen=True)
class Preset:
    """What commands do where nothing else is asked for.

    Attributes:
        precision: of the engines that `build` makes.
        max_side_px: longest side of an image that is indexed, None for no limit.
        scales: those of `IMAGE_SCALES` that descriptors are made of.
        maps: how a gallery keeps them; see `engine.gallery.map_codec`.
        rerank, method, fine: how a query is searched; see `Plan`.
    """

    precision: str = "fp32"
    max_side_px: int | None = 1024
    scales: tuple[float, ...] = IMAGE_SCALES
    maps: str = "float16"
    rerank: int = 100
    method: RerankWith = "cvnet"
    fine: int | None = None


PRESETS = {
    "exact": Preset(),
    "balanced": Preset("int8", 768, IMAGE_SCALES[:2], "coded:24", fine=20),
    "fast": Preset("int8", 512, IMAGE_SCALES[:2], "coded:24", fine=10),
}  # decision 032


def preset(name: str) -> Preset:
    """
    Raises:
        CvnetError: there is none of that name.
    """
    if name not in PRESETS:
        raise CvnetError(f"preset {name!r}: expected {', '.join(PRESETS)}")
    return PRESETS[name]
