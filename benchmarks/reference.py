"""The PyTorch reference behind the engines' interface, so that one loop serves both.

Its maps are the raw stage-3 maps of 1024 channels in float32, and its reranker is the published form.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.dataset import Dataset
from benchmarks.journal import Journal, image_facts
from cvnet.model import CVNet
from engine.features import Features
from engine.images import normalise, read
from engine.retriever import Retriever
from engine.session import Array, TensorSpec

KEPT = 256  # images whose raw maps stay in memory: 3 GiB at 1024x768 px

IMAGE = {"image": TensorSpec("float32", ("batch", 3, "height", "width"))}
DESCRIPTOR = {"descriptor": TensorSpec("float32", ("batch", 2048))}
MAP = TensorSpec("float32", ("batch", 1024, "map_height", "map_width"))


class TorchEngine:
    """An `Engine` that calls PyTorch."""

    def __init__(
        self,
        call: Callable[..., tuple[Tensor, ...]],
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
        device: str,
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._call, self._device = call, device

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        arguments = [torch.from_numpy(feeds[name]).to(self._device) for name in self.inputs]
        with torch.inference_mode():
            results = self._call(*arguments)
        return {name: t.cpu().numpy() for name, t in zip(self.outputs, results, strict=True)}

    def close(self) -> None:
        del self._call


def reference(model: CVNet, device: str = "cpu") -> Retriever:
    """The published model as a retriever."""
    model = model.to(device)

    def score(query: Tensor, keys: Tensor) -> tuple[Tensor]:
        return (torch.cat([model.score(query, key[None]) for key in keys]),)  # one pair at a time, as published

    pair = {"query_0": MAP, "key_0": MAP}
    return Retriever(
        descriptor=TorchEngine(lambda image: model(image)[:1], IMAGE, DESCRIPTOR, device),
        features=TorchEngine(model, IMAGE, DESCRIPTOR | {"map_0": MAP}, device),
        reranker=TorchEngine(score, pair, {"score": TensorSpec("float32", ("batch",))}, device),
    )


class ReferenceCollection:
    """A data set's database as the reference describes it: descriptors in a journal, raw maps of the latest `KEPT`."""

    def __init__(
        self,
        dataset: Dataset,
        retriever: Retriever,
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

    def map_size(self, row: int) -> tuple[int, int]:
        """Positions of the row's feature map."""
        return self._map_sizes[row]

    def features(self, row: int) -> Features:
        """The row's descriptor and raw map."""
        return Features(self.descriptors[row], (self._map_of(row),))

    def _extract_map(self, row: int) -> Array:
        """(1024, h, w) float32, from the image as it is."""
        outputs = self._retriever.features.run({"image": normalise(read(self._dataset.images[row]))})
        feature_map: Array = outputs["map_0"][0]
        return feature_map


def describe(retriever: Retriever, path: Path) -> dict[str, Array]:
    """An image's descriptor, the positions of its map, and the seconds it took."""
    started = time.perf_counter()
    features = retriever.extract_file(path)
    seconds = time.perf_counter() - started
    return {
        "descriptor": features.descriptor,
        "map_size": np.array(features.map_size),
        "seconds": np.array(seconds),
    }
