"""Features of one image: its descriptor, and its feature maps for the reranker."""

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
        maps: one (256, h_s, w_s) array per area scale, L2-normalised per position; float32 as computed. See
            `engine.gallery.map_codecs` for the stored form.
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
        """Tell if all values are finite."""
        return all(map(is_finite, (self.descriptor, *self.maps)))


def is_finite(array: Array) -> bool:
    """Tell if all values of a floating array are finite."""
    if array.dtype == np.float16:
        # NumPy would widen every value first and take 70 times as long as this test of the exponent bits
        return bool((array.view(np.uint16) & 0x7C00).max(initial=0) < 0x7C00)
    return bool(np.isfinite(array).all())
