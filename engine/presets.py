"""Presets of build, index and search settings: as published, balanced, or fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cvnet_engine.engine.errors import CvnetError
from cvnet_engine.engine.geometry import IMAGE_SCALES, Scales
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
            CvnetError: a negative number, an unknown method, or `rerank_full` with a method that scores no pairs.
        """
        rerank, method = self.rerank if rerank is None else rerank, method or self.method
        if top_k < 1 or min(rerank, rerank_full or 0) < 0:
            raise CvnetError(
                f"top_k is {top_k}, rerank {rerank}, rerank_full {rerank_full}; expected at least 1, 0 and 0"
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
PRESETS: dict[PresetName, Preset] = {
    "exact": Preset(),
    "balanced": Preset("int8", 768, (1.0,), "coded:24", rerank_full=30),
    "fast": Preset("int8", 512, (1.0,), "coded:16", rerank_full=20),
}  # see docs/decisions/reranking-and-presets.md


def named(name: str) -> Preset:
    """Return a preset by name.

    Raises:
        CvnetError: the name is unknown.
    """
    if name not in PRESETS:
        raise CvnetError(f"preset {name!r}: expected one of {', '.join(PRESETS)}")
    return PRESETS[name]


def limit_px(max_side: int | None, preset: PresetName | None) -> int | None:
    """Return the longest side of an image: `max_side` (0 for no limit), or the preset's if it is None."""
    return PRESETS[preset or "exact"].max_side_px if max_side is None else max_side or None
