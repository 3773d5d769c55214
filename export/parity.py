"""Exported graphs against PyTorch, over the whole chain from image to score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cvnet.model import CVNet
from engine.errors import ExportError
from engine.session import Array, open_engine

IMAGE_SIZES = ((160, 224), (97, 131), (33, 200))  # (height, width) px
TOLERANCE = {"descriptor": 1e-5, "logits": 1e-4, "score": 1e-5}


def check(graphs: dict[str, Path], model: CVNet, backend: str) -> dict[str, float]:
    """The largest difference of each output from PyTorch's, over pairs of images of several sizes.

    Raises:
        ExportError: a difference beyond `TOLERANCE`.
    """
    engines = {name: open_engine(file, backend) for name, file in graphs.items()}
    worst = dict.fromkeys(TOLERANCE, 0.0)

    def compare(name: str, got: Array, want: Tensor) -> None:
        worst[name] = max(worst[name], float(np.abs(got - want.cpu().numpy()).max()))

    described: list[tuple[dict[str, Array], Tensor]] = []
    for seed, size in enumerate(IMAGE_SIZES):
        images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            descriptor, feature_map = model(images)
        features = engines["features"].run({"image": images.numpy()})
        compare("descriptor", features.pop("descriptor"), descriptor)
        compare("descriptor", engines["descriptor"].run({"image": images.numpy()})["descriptor"], descriptor)
        described.append((features, feature_map))

    for (query, query_map), (key, key_map) in zip(described, described[1:] + described[:1], strict=True):
        feeds = {f"query_{s}": m[:1] for s, m in enumerate(query.values())}
        feeds |= {f"key_{s}": m for s, m in enumerate(key.values())}
        outputs = engines["reranker"].run(feeds)
        with torch.inference_mode():
            logits = model.reranker(query_map[:1].expand_as(query_map), key_map)
        compare("logits", outputs["logits"], logits)
        compare("score", outputs["score"], logits.softmax(dim=1)[:, 1])
    for name, difference in worst.items():
        if not difference <= TOLERANCE[name]:  # also false for NaN
            raise ExportError(
                f"{name} differs from PyTorch by {difference:.1e} on {backend}; expected at most {TOLERANCE[name]:.0e}"
            )
    return worst
