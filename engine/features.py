"""What is known of one image: its descriptor, and its unit maps for the reranker."""

from __future__ import annotations

from dataclasses import dataclass

from engine.contract import Array
from engine.geometry import Size


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
