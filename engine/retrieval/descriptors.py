"""The two ways to describe an image: CVNet's published one, and SuperGlobal's with the same weights.

A kind says what the descriptor graph is fed at each of `IMAGE_SCALES`, and how what it returns for them becomes one
descriptor. The unit maps of the reranker are the same with either: those of the image as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.geometry import MIN_SIDE_PX, Size, scaled
from cvnet_engine.engine.images import normalise, rescale
from cvnet_engine.engine.retrieval import superglobal


@dataclass(frozen=True)
class Descriptor:
    """How an image is described.

    Attributes:
        min_side_px: the fewest pixels that a side of an image may have.
        scaled: an image's (height, width) px, one of `IMAGE_SCALES` -> those of the network input.
        network_input: BGR image (H, W, 3) uint8, one of `IMAGE_SCALES` -> normalised (1, 3, H', W') float32.
        over_scales: descriptors (S, 2048) of the scales, each of unit norm -> the image's (2048,), of unit norm.
    """

    min_side_px: int
    scaled: Callable[[Size, float], Size]
    network_input: Callable[[Array, float], Array]
    over_scales: Callable[[Array], Array]


def cvnet_input(image: Array, scale: float) -> Array:
    """Scaled as 8-bit values, then normalised."""
    return normalise(rescale(image, scale))


def mean(descriptors: Array) -> Array:
    average = np.mean(descriptors, axis=0)
    return np.asarray(average / np.linalg.norm(average))


DESCRIPTORS = {
    "cvnet": Descriptor(MIN_SIDE_PX, scaled, cvnet_input, mean),
    "superglobal": Descriptor(
        superglobal.MIN_SIDE_PX, superglobal.scaled, superglobal.network_input, superglobal.over_scales
    ),
}  # of `engine.geometry.DESCRIPTOR_NAMES`
