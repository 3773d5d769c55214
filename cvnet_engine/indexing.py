"""Python function for adding images to a gallery; the counterpart of `cvnet-engine index`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import CvnetError
from cvnet_engine.engine.gallery.indexing import IndexReport, find
from cvnet_engine.engine.gallery.ray_indexing import opened_indexer
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.presets import PresetName, gallery_settings


@np.errstate(all="ignore")  # the caller's settings are for the caller's arithmetic
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
        preset: default for `max_side_px`, `maps` and `scales`. Without a preset, the defaults are the existing
            gallery's settings, or those of `exact` for a new gallery.
        max_side_px: longest side of an image before extraction, None for no limit. Must match the existing gallery.
        maps: storage format of the feature maps, as in `cvnet-engine index --maps`.
        scales: image scales that the descriptor averages: 1 and any of 0.7071 and 1.4142.
        threads: number of CPU threads; by default all available ones.
        done: called with each image's path, on the caller's thread.

    Raises:
        CvnetError: no images found, invalid options, or a gallery that was built with another model or cannot be
            written. An unreadable image does not raise; the report lists it.
    """
    if isinstance(max_side_px, int) and max_side_px < 1:
        raise CvnetError(f"max_side_px {max_side_px}: expected at least 1, or None for no limit")
    limit_px = None if max_side_px == "preset" else max_side_px or 0
    found = find(map(Path, images))
    settings = gallery_settings(bundle.manifest, Path(gallery), preset, limit_px, maps, scales)
    report = IndexReport(skipped=found.skipped)
    with GalleryWriter(Path(gallery), settings) as writer, opened_indexer(bundle, settings, threads) as index_images:
        index_images(found.images, writer, report, done)
    return report
