"""Presets of build, index and search settings, and the settings to index with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Literal, get_args

from cvnet_engine.engine.bundle import Manifest
from cvnet_engine.engine.errors import CvnetError
from cvnet_engine.engine.gallery.info import INFO, GalleryInfo, read_info
from cvnet_engine.engine.gallery.map_codecs import kind_wanted
from cvnet_engine.engine.geometry import IMAGE_SCALES, Scales, require_scales
from cvnet_engine.engine.retrieval.searcher import Plan, RerankWith


@dataclass(frozen=True)
class Preset:
    """Default settings of the commands.

    Attributes:
        precision: precision of the engines that `build` makes.
        max_side_px: larger images are shrunk to this longest side before indexing; None for no limit.
        scales: image scales used for descriptors, of `IMAGE_SCALES`.
        maps: storage format of a gallery's feature maps; see `engine.gallery.map_codecs`.
        rerank, method, rerank_full: see `Plan`.
    """

    precision: str = "fp32"
    max_side_px: int | None = 1024
    scales: Scales = IMAGE_SCALES
    maps: str = "float16"
    rerank: int = 100
    method: RerankWith = "cvnet"
    rerank_full: int | None = None

    def plan(self, top_k: int, rerank: int | None, method: RerankWith | None, rerank_full: int | None) -> Plan:
        """Return the settings of a search: the arguments, and the preset's values for those that are None.

        Raises:
            CvnetError: a number that is negative or not whole, an unknown method, or `rerank_full` with a method that
                scores no pairs.
        """
        rerank, method = self.rerank if rerank is None else rerank, method or self.method
        numbers = (top_k, rerank, rerank_full or 0)
        if not all(isinstance(number, Integral) for number in numbers) or top_k < 1 or min(numbers) < 0:
            raise CvnetError(
                f"top_k is {top_k!r}, rerank {rerank!r}, rerank_full {rerank_full!r}; "
                "expected whole numbers of at least 1, 0 and 0"
            )
        if method not in get_args(RerankWith):
            raise CvnetError(f"method {method!r}: expected one of {', '.join(get_args(RerankWith))}")
        if method == "superglobal" and rerank_full is not None:
            raise CvnetError(
                f"rerank_full {rerank_full}: superglobal scores no pairs; leave it out, or rerank with cvnet or both"
            )
        if method != "superglobal" and rerank_full is None:
            rerank_full = self.rerank_full
        return Plan(top_k, rerank, method, rerank_full)


PresetName = Literal["exact", "balanced", "fast"]
PRESETS: dict[str, Preset] = {
    "exact": Preset(),
    "balanced": Preset("int8", 768, (1.0,), "coded:24", rerank_full=30),
    "fast": Preset("int8", 512, (1.0,), "coded:16", rerank_full=20),
}  # see docs/decisions/reranking-and-presets.md


def named(name: str | None) -> Preset:
    """Return a preset by name; `exact` if it is None.

    Raises:
        CvnetError: the name is unknown.
    """
    if name is None:
        return PRESETS["exact"]
    if name not in PRESETS:
        raise CvnetError(f"preset {name!r}: expected one of {', '.join(PRESETS)}")
    return PRESETS[name]


def gallery_settings(
    manifest: Manifest,
    gallery: Path | None,
    preset: str | None = None,
    max_side_px: int | None = None,
    maps: str | None = None,
    scales: Iterable[float] | None = None,
) -> GalleryInfo:
    """Return the settings to index with: the arguments, and a default for those that are None.

    The default is the preset's value. Without a preset, it is the existing gallery's, or that of `exact`.

    Args:
        gallery: folder of the gallery, which need not exist; None for a temporary one.
        max_side_px: see `Preset`; 0 for no limit.

    Raises:
        CvnetError: an argument is invalid, or the gallery's settings cannot be read.
    """
    default: Preset | GalleryInfo = named(preset)
    if preset is None and gallery and (gallery / INFO).exists():
        default = read_info(gallery)
    return GalleryInfo.made_with(
        manifest,
        default.max_side_px if max_side_px is None else max_side_px or None,
        kind_wanted(maps) if maps else default.maps,
        require_scales(scales) if scales else default.scales,
    )
