"""Engines that compute next to nothing, so that the frontier's loops can be run whole."""

from __future__ import annotations

import zlib

import numpy as np

from cvnet_engine.engine.contract import TensorSpec
from cvnet_engine.engine.geometry import MAP_DIM, map_size, unit_map_sizes
from cvnet_engine.engine.retrieval.descriptors import DESCRIPTORS
from cvnet_engine.engine.retrieval.engines import Engines

FLOATING = TensorSpec("floating", (None,))


class FakeEngine:
    """A graph by name: unit descriptors and maps that follow from the image, scores that follow from the maps."""

    def __init__(self, graph):
        self.graph, self.runs = graph, 0
        self.inputs = {f"{side}_{scale}": FLOATING for side in ("query", "key") for scale in range(3)}

    def run(self, feeds):
        self.runs += 1
        if self.graph == "reranker":
            alike = np.einsum("bchw,bchw->b", *[feeds["key_0"].astype(np.float32)] * 2)
            return {"score": np.float32(0.5) + np.float32(0.4) * np.sin(alike * feeds["query_0"][0].sum())}
        image = feeds["image"]
        rng = np.random.default_rng(zlib.crc32(image.tobytes()))
        outputs = {"descriptor": unit(rng.standard_normal((1, 2048)))}
        if self.graph == "features":
            for scale, size in enumerate(unit_map_sizes(map_size(image.shape[2:]))):
                outputs[f"map_{scale}"] = unit(rng.standard_normal((1, MAP_DIM, *size)))
        return outputs

    def close(self):
        pass


def unit(array):
    return (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32)


class FakeEngineCache:
    """Stands in for `Engines`: the same fake engines for every precision, a pair of image graphs a descriptor."""

    def __init__(self):
        self.reranker = FakeEngine("reranker")
        self.of = {
            name: Engines(FakeEngine("descriptor"), FakeEngine("features"), self.reranker, kind)
            for name, kind in DESCRIPTORS.items()
        }

    def get(self, _precision, descriptor):
        return self.of[descriptor]

    @property
    def runs(self):
        graphs = [engine for engines in self.of.values() for engine in (engines.descriptor, engines.features)]
        return sum(engine.runs for engine in graphs), self.reranker.runs
