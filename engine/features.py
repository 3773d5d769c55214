"""What is known of one image: its descriptor, and its unit maps for the reranker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.geometry import Size


@dataclass(frozen=True)
class Features:
    """One image's features.

    Attributes:
        descriptor: (2048,) float32, unit norm.
        maps: one (256, h_s, w_s) array for each area scale, unit norm per position; float32 as computed, as stored
            see `engine.gallery.map_codec`.
    """

    descriptor: Array
    maps: tuple[Array, ...]

    @property
    def map_size(self) -> Size:
        """Positions (h, w) of the full-scale map; candidates of equal size are scored in one batch."""
        height, width = self.maps[-1].shape[1:]
        return height, width

    @property
    def is_finite(self) -> bool:
        """Whether no value is infinite or NaN."""
        return all(map(is_finite, (self.descriptor, *self.maps)))


def is_finite(array: Array) -> bool:
    """Whether no value of a floating array is infinite or NaN."""
    if array.dtype == np.float16:  # by its exponent bits: NumPy would widen every value first, at 70 times the time
        return bool((array.view(np.uint16) & 0x7C00).max(initial=0) < 0x7C00)
    return bool(np.isfinite(array).all())
