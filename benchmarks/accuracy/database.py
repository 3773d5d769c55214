"""In-memory database of extracted features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.map_codecs import MapCodec, decoded
from cvnet_engine.engine.geometry import Size


@dataclass(frozen=True)
class Database:
    """Features of database images, held in memory."""

    described: Sequence[Features]

    @classmethod
    def as_kept(cls, described: Sequence[Features], codec: MapCodec) -> Database:
        """Return the features as a gallery with this map codec would store and return them."""
        return cls([decoded(features, codec) for features in described])

    @property
    def descriptors(self) -> Array:
        """Descriptors (n, 2048) float32."""
        return np.stack([features.descriptor for features in self.described])

    def map_size(self, row: int) -> Size:
        return self.described[row].map_size

    def features(self, row: int) -> Features:
        return self.described[row]
