"""PyTorch reference behind the engines' interface, so that one loop serves both.

Its maps are the raw stage-3 maps of 1024 channels in float32, and its reranker is the published form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine.contract import Array, Closing, TensorSpec
from cvnet_engine.engine.geometry import DESCRIPTOR_DIM, LOCAL_DIM
from cvnet_engine.engine.retrieval.descriptors import DESCRIPTORS
from cvnet_engine.engine.retrieval.engines import Engines

IMAGE = {"image": TensorSpec("float32", ("batch", 3, "height", "width"))}
DESCRIPTOR = {"descriptor": TensorSpec("float32", ("batch", DESCRIPTOR_DIM))}
MAP = TensorSpec("float32", ("batch", LOCAL_DIM, "map_height", "map_width"))


class TorchEngine(Closing):
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


def reference(model: CVNet, device: str = "cpu") -> Engines:
    """Return the published model behind the interface of engines."""
    model = model.to(device)

    def score(query: Tensor, keys: Tensor) -> tuple[Tensor]:
        return (torch.cat([model.score(query, key[None]) for key in keys]),)  # one pair at a time, as published

    pair = {"query_0": MAP, "key_0": MAP}
    return Engines(
        descriptor=TorchEngine(lambda image: (model.backbone.describe(image),), IMAGE, DESCRIPTOR, device),
        features=TorchEngine(model, IMAGE, DESCRIPTOR | {"map_0": MAP}, device),
        reranker=TorchEngine(score, pair, {"score": TensorSpec("float32", ("batch",))}, device),
        kind=DESCRIPTORS[model.descriptor],
    )
