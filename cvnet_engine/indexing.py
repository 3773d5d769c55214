"""Adding images to a gallery from Python: the path of `cvnet-engine index`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import CvnetError
from cvnet_engine.engine.gallery import indexing
from cvnet_engine.engine.gallery.indexing import IndexReport
from cvnet_engine.engine.gallery.info import GalleryInfo, kind_of, scales_of
from cvnet_engine.engine.gallery.map_codec import kind_wanted
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.geometry import require_scales
from cvnet_engine.engine.presets import PresetName, named
from cvnet_engine.engine.retrieval.engines import Engines


def index(
    *images: str | os.PathLike[str],
    bundle: Bundle,
    gallery: str | os.PathLike[str],
    preset: PresetName | None = None,
    max_side_px: int | Literal["preset"] | None = "preset",
    maps: str | None = None,
    scales: Iterable[float] | None = None,
    threads: int | None = None,
    done: Callable[[Path], None] = lambda _: None,
) -> IndexReport:
    """Bring a gallery up to date with image files and folders of them; what is there and unchanged is skipped.

    Args:
        gallery: its folder, made where it is not there. Galleries that are open do not change: open it again.
        preset: what the next three are where they are left out.
        max_side_px: longest side of an image before extraction, None for no limit; a gallery has one. 1024 without a
            preset.
        maps: how the gallery keeps them, as `cvnet-engine index --maps` takes it; without a preset as it does, or as
            float16 where it is new.
        scales: that images are described at, 1 and any of 0.7071 and 1.4142; without a preset those of the gallery, or
            all where it is new.
        threads: of the CPU; all that are available by default.
        done: called with each image's path, from the caller's thread.

    Raises:
        CvnetError: no images there; a gallery of another model, or one that cannot be written. An image that cannot be
            read is no error, it goes to the report.
    """
    chosen = named(preset or "exact")
    if max_side_px == "preset":
        max_side_px = chosen.max_side_px
    if max_side_px is not None and max_side_px < 1:
        raise CvnetError(f"max_side_px {max_side_px}: expected at least 1, or None for no limit")
    if preset:
        maps, scales = maps or chosen.maps, scales or chosen.scales
    folder = Path(gallery)
    found = indexing.find(map(Path, images))
    kind, at = kind_wanted(maps) if maps else kind_of(folder), require_scales(scales) if scales else scales_of(folder)
    made = GalleryInfo.made_with(bundle.manifest, max_side_px, kind, at)
    report = IndexReport(skipped=found.skipped)
    at_once = indexing.streams(bundle, threads, max_side_px)
    with GalleryWriter(folder, made) as writer, Engines.open(bundle, threads, at, at_once) as retriever:
        indexing.index(found.images, retriever, writer, max_side_px, report, done)
    return report
