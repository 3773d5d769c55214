"""Databases of a data set: images of a gallery, features in memory, and the PyTorch reference's features."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from cvnet_engine.benchmarks.accuracy.dataset import Dataset
from cvnet_engine.benchmarks.accuracy.journal import Journal, image_facts
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.map_codecs import MapCodec, decoded
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.geometry import Size
from cvnet_engine.engine.images import load, normalise
from cvnet_engine.engine.retrieval.engines import Collection, Engines, Mapped
from cvnet_engine.engine.retrieval.pooling import with_pooled_maps

KEPT = 256  # raw feature maps cached in memory: 3 GiB for images of 1024x768 px


@dataclass(frozen=True)
class Selected:
    """Rows of another set of images, renumbered."""

    whole: Mapped
    rows: Array  # (n,) int64

    def map_size(self, row: int) -> Size:
        return self.whole.map_size(int(self.rows[row]))

    def features(self, row: int) -> Features:
        return self.whole.features(int(self.rows[row]))


@dataclass(frozen=True)
class Selection(Selected):
    """Selected rows of a larger collection, usable as a collection."""

    whole: Collection

    @classmethod
    def of_gallery(cls, gallery: Gallery, paths: Sequence[Path]) -> Selection:
        """Select the images at `paths`, in that order; all of them must be in the gallery."""
        row_of = {path: row for row, path in enumerate(gallery.paths)}
        return cls(gallery, np.array([row_of[path.absolute()] for path in paths], np.int64))

    @property
    def descriptors(self) -> Array:
        return self.whole.descriptors[self.rows]

    def pooled(self) -> Selected:
        return Selected(with_pooled_maps(self.whole), self.rows)


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


class ReferenceCollection:
    """A data set's database extracted by the reference. The journal keeps descriptors; raw maps are extracted again.

    The last `KEPT` raw maps are cached.
    """

    def __init__(
        self,
        dataset: Dataset,
        engines: Engines,
        identity: str = "",
        journal: Journal | None = None,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            identity: identifies everything that the engines' results depend on.
            journal: keeps the descriptors; None keeps them in memory.
            done: called after each image.
        """
        journal = journal or Journal(None)
        self._dataset, self._engines = dataset, engines
        self._map_of = lru_cache(KEPT)(self._extract_map)
        self.seconds = 0.0  # of extracting the database, including earlier runs
        descriptors, self._map_sizes = [], []
        for path in dataset.images:
            facts = image_facts(identity, path)
            described = journal.get(facts)
            if described is None:
                described = describe(engines, path)
                journal.put(facts, described)
            descriptors.append(described["descriptor"])
            self._map_sizes.append(tuple(described["map_size"].tolist()))
            self.seconds += float(described["seconds"])
            done()
        self.descriptors: Array = np.stack(descriptors)

    def map_size(self, row: int) -> Size:
        """Return (height, width) of the row's feature map, in positions."""
        return self._map_sizes[row]

    def features(self, row: int) -> Features:
        """Return the row's descriptor and raw feature map."""
        return Features(self.descriptors[row], (self._map_of(row),))

    def _extract_map(self, row: int) -> Array:
        """Return the raw map (1024, h, w) float32 of the image at scale 1."""
        outputs = self._engines.features.run({"image": normalise(load(self._dataset.images[row]))})
        feature_map: Array = outputs["map_0"][0]
        return feature_map


def describe(engines: Engines, path: Path) -> dict[str, Array]:
    """Return an image's descriptor, its map size in positions, and the seconds of extraction."""
    started = time.perf_counter()
    features = engines.extract_from(path)
    seconds = time.perf_counter() - started
    return {
        "descriptor": features.descriptor,
        "map_size": np.array(features.map_size),
        "seconds": np.array(seconds),
    }
