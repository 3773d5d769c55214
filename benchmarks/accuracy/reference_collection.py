"""The database of a data set as described by the PyTorch reference."""

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

KEPT = 256  # images whose raw maps stay in memory: 3 GiB at 1024x768 px


class ReferenceCollection:
    """A data set's database as the reference describes it: descriptors in a journal, raw maps of the latest `KEPT`."""

    def __init__(
        self,
        dataset: Dataset,
        retriever: Engines,
        identity: str = "",
        journal: Journal | None = None,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            identity: what the retriever's results depend on.
            journal: where descriptions are kept; nowhere if None.
        """
        journal = journal or Journal(None)
        self._dataset, self._retriever = dataset, retriever
        self._map_of = lru_cache(KEPT)(self._extract_map)
        self.seconds = 0.0  # that describing the database took, whenever that was
        descriptors, self._map_sizes = [], []
        for path in dataset.images:
            facts = image_facts(identity, path)
            described = journal.get(facts)
            if described is None:
                described = describe(retriever, path)
                journal.put(facts, described)
            descriptors.append(described["descriptor"])
            self._map_sizes.append(tuple(described["map_size"].tolist()))
            self.seconds += float(described["seconds"])
            done()
        self.descriptors: Array = np.stack(descriptors)

    def map_size(self, row: int) -> Size:
        """Positions of the row's feature map."""
        return self._map_sizes[row]

    def features(self, row: int) -> Features:
        """The row's descriptor and raw map."""
        return Features(self.descriptors[row], (self._map_of(row),))

    def _extract_map(self, row: int) -> Array:
        """(1024, h, w) float32, from the image as it is."""
        outputs = self._retriever.features.run({"image": normalise(load(self._dataset.images[row]))})
        feature_map: Array = outputs["map_0"][0]
        return feature_map


def describe(retriever: Engines, path: Path) -> dict[str, Array]:
    """An image's descriptor, the positions of its map, and the seconds it took."""
    started = time.perf_counter()
    features = retriever.extract_from(path)
    seconds = time.perf_counter() - started
    return {
        "descriptor": features.descriptor,
        "map_size": np.array(features.map_size),
        "seconds": np.array(seconds),
    }
