"""The two descriptor methods: CVNet's published one, and SuperGlobal's with the same weights.

A method defines the network input at each of `IMAGE_SCALES`, and how the outputs become one descriptor. The reranker's
feature maps are the same with both: those of scale 1.
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
    """A descriptor method.

    Attributes:
        min_side_px: minimum length of an image's shorter side.
        scaled: (height, width) px of an image, one of `IMAGE_SCALES` -> (height, width) px of the network input.
        network_input: BGR image (H, W, 3) uint8, one of `IMAGE_SCALES` -> normalised (1, 3, H', W') float32.
        over_scales: descriptors (S, 2048) of the scales, each of unit norm -> the image's (2048,), of unit norm.
    """

    min_side_px: int
    scaled: Callable[[Size, float], Size]
    network_input: Callable[[Array, float], Array]
    over_scales: Callable[[Array], Array]


def cvnet_input(image: Array, scale: float) -> Array:
    """Scale the 8-bit image, then normalise it."""
    return normalise(rescale(image, scale))


def mean(descriptors: Array) -> Array:
    average = np.mean(descriptors, axis=0)
    return np.asarray(average / np.linalg.norm(average))


DESCRIPTORS = {
    "cvnet": Descriptor(MIN_SIDE_PX, scaled, cvnet_input, mean),
    "superglobal": Descriptor(
        superglobal.MIN_SIDE_PX, superglobal.scaled, superglobal.network_input, superglobal.over_scales
    ),
}  # same keys as `engine.geometry.DESCRIPTOR_NAMES`
