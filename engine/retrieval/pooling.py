"""Feature maps at coarse (half) resolution: a pair costs a sixteenth of one at full resolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import cv2
import numpy as np

from cvnet_engine.engine.backends.native import library
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.geometry import Size, pooled_size, unit_map_sizes
from cvnet_engine.engine.retrieval.engines import Mapped


@dataclass(frozen=True)
class Pooled:
    """A collection at coarse resolution. Maps are pooled when they are read."""

    whole: Mapped

    def map_size(self, row: int) -> Size:
        return pooled_size(self.whole.map_size(row))

    def features(self, row: int) -> Features:
        return pooled(self.whole.features(row))


@runtime_checkable
class Poolable(Protocol):
    """Interface of collections that have a faster way to read maps at coarse resolution."""

    def pooled(self) -> Mapped:
        """Return the same images at coarse resolution."""


def with_pooled_maps(collection: Mapped) -> Mapped:
    """Return the same images at coarse resolution."""
    return collection.pooled() if isinstance(collection, Poolable) else Pooled(collection)


def pooled(features: Features) -> Features:
    """Return the features at coarse resolution: means over 2x2 positions, L2-normalised again, float32.

    An odd side is divided into equal parts; a position on a boundary counts partly in both. A side of two positions is
    not reduced, see `pooled_size`.
    """
    sizes = unit_map_sizes(pooled_size(features.map_size))
    fastest = library.shrink if library.is_ready() else shrink
    return replace(features, maps=tuple(map(fastest, features.maps, sizes)))


def shrink(unit_map: Array, size: Size) -> Array:
    """Pool a map in NumPy and OpenCV, like `library.shrink` but three times slower; used if it is unavailable."""
    channels, height, width = unit_map.shape
    # All channels are resized at once, stacked vertically: each output row covers rows of one channel only.
    tall = unit_map.astype(np.float32).reshape(channels * height, width)
    means = cv2.resize(tall, (size[1], channels * size[0]), interpolation=cv2.INTER_AREA).reshape(channels, *size)
    norms = np.sqrt(np.einsum("chw,chw->hw", means, means))
    return np.asarray(means / np.where(norms > 0, norms, 1), np.float32)
