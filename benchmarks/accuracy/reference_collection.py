"""Database of a data set, with features extracted by the PyTorch reference."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from cvnet_engine.benchmarks.accuracy.dataset import Dataset
from cvnet_engine.benchmarks.accuracy.journal import Journal, image_facts
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.geometry import Size
from cvnet_engine.engine.images import load, normalise
from cvnet_engine.engine.retrieval.engines import Engines

KEPT = 256  # raw feature maps cached in memory: 3 GiB for images of 1024x768 px


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
