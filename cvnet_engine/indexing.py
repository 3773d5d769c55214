"""Python function for adding images to a gallery; the counterpart of `cvnet-engine index`."""

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
from cvnet_engine.engine.gallery.map_codecs import kind_wanted
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
    """Add new and changed images to a gallery; unchanged images are skipped.

    Args:
        images: image files and folders of images.
        gallery: folder of the gallery, created if missing. A `Gallery` that is already open does not see the new
            images; open it again.
        preset: default for `max_side_px`, `maps` and `scales`.
        max_side_px: longest side of an image before extraction, None for no limit. Must match the existing gallery.
            Without a preset, 1024.
        maps: storage format of the feature maps, as in `cvnet-engine index --maps`. Without a preset, the existing
            gallery's format; float16 for a new gallery.
        scales: image scales that the descriptor averages: 1 and any of 0.7071 and 1.4142. Without a preset, the
            existing gallery's scales; all three for a new gallery.
        threads: number of CPU threads; by default all available ones.
        done: called with each image's path, on the caller's thread.

    Raises:
        CvnetError: no images found, invalid options, or a gallery that was built with another model or cannot be
            written. An unreadable image does not raise; the report lists it.
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
    with GalleryWriter(folder, made) as writer, Engines.open(bundle, threads, at, at_once) as engines:
        indexing.index(found.images, engines, writer, max_side_px, report, done)
    return report
