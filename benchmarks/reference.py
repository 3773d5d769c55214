"""The PyTorch reference behind the engines' interface, so that one loop serves both.

Its maps are the raw stage-3 maps of 1024 channels in float32, and its reranker is the published form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from benchmarks.dataset import Dataset
from cvnet.model import CVNet
from engine.features import Features
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
    """A data set's database extracted by the reference: descriptors of all, raw maps of the latest `KEPT`."""

    def __init__(self, dataset: Dataset, retriever: Retriever, done: Callable[[], None] = lambda: None) -> None:
        @lru_cache(KEPT)
        def features(row: int) -> Features:
            return retriever.extract_file(dataset.images[row])

        self.features = features
        descriptors, self._map_sizes = [], []
        for row in range(len(dataset.images)):
            extracted = features(row)
            descriptors.append(extracted.descriptor)
            self._map_sizes.append(extracted.map_size)
            done()
        self.descriptors: Array = np.stack(descriptors)

    def map_size(self, row: int) -> tuple[int, int]:
        """Positions of the row's feature map."""
        return self._map_sizes[row]
