"""Maps of half the grid a side: a rough look at an image, for a sixteenth of a pair's work."""

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
    """A collection's images with their maps pooled, each when it is asked for."""

    whole: Mapped

    def map_size(self, row: int) -> Size:
        return pooled_size(self.whole.map_size(row))

    def features(self, row: int) -> Features:
        return pooled(self.whole.features(row))


@runtime_checkable
class Poolable(Protocol):
    """Images that know how their pooled maps come cheapest."""

    def pooled(self) -> Mapped:
        """The same images with pooled maps."""


def with_pooled_maps(collection: Mapped) -> Mapped:
    """The same images with pooled maps."""
    return collection.pooled() if isinstance(collection, Poolable) else Pooled(collection)


def pooled(features: Features) -> Features:
    """Features whose maps are those of an image of half the size: means over 2x2 positions, unit norm again, float32.

    What is not even is cut into equal parts, positions that lie across a cut counting in both. A side of two positions
    stays as it is, see `pooled_size`.
    """
    sizes = unit_map_sizes(pooled_size(features.map_size))
    fastest = library.shrink if library.is_ready() else shrink
    return replace(features, maps=tuple(map(fastest, features.maps, sizes)))


def shrink(unit_map: Array, size: Size) -> Array:
    """What `library.shrink` does, where the library cannot be had, in thrice the time."""
    channels, height, width = unit_map.shape
    # the channels one below the other are one tall picture: its rows are cut at every channel's end
    tall = unit_map.astype(np.float32).reshape(channels * height, width)
    means = cv2.resize(tall, (size[1], channels * size[0]), interpolation=cv2.INTER_AREA).reshape(channels, *size)
    norms = np.sqrt(np.einsum("chw,chw->hw", means, means))
    return np.asarray(means / np.where(norms > 0, norms, 1), np.float32)
