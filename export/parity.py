"""Parity checks of engines against PyTorch, on inputs of several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import cv2
import numpy as np
import torch
from torch import Tensor

from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine.contract import Array, Engine
from cvnet_engine.engine.errors import ExportError
from cvnet_engine.engine.geometry import Size
from cvnet_engine.export.reranker import UnitMaps
from cvnet_engine.export.tensorrt_plan import size_ranges

IMAGE_SIZES = {
    "cvnet": ((160, 224), (97, 131), (33, 200)),
    "superglobal": ((160, 224), (97, 131), (65, 200)),
}  # (height, width) px, by descriptor

# Largest difference allowed, by precision. For descriptors and maps: the L2 distance between two unit vectors, at the
# worst position of a map.
TOLERANCE = {
    "fp32": {"descriptor": 1e-5, "map": 1e-4, "logits": 1e-4, "score": 1e-5},
    "bf16": {"descriptor": 5e-2, "map": 1e-1, "logits": 1e-1, "score": 1e-2},
    "fp16": {"descriptor": 3e-2, "map": 5e-2, "logits": 5e-2, "score": 5e-3},
    "int8": {"descriptor": 1e-1, "map": 5e-1, "logits": 5e-1, "score": 1e-1},  # docs/decisions/graphs-and-precision.md
}
HALF_KEYS = {"logits": 1e-4, "score": 2e-5}  # added to the tolerance of engines that take candidates' maps in float16


@dataclass(frozen=True)
class Case:
    """Inputs of a graph, and PyTorch's outputs for them."""

    feeds: dict[str, Array]
    want: dict[str, Array]


def samples(planned: Sequence[Size] | None, photos: Sequence[Array], descriptor: str = "cvnet") -> list[Array]:
    """Return images (B, 3, H, W) float32 to compare on: the photos, or noise if there are none.

    Args:
        planned: sizes (height, width) px of the TensorRT plans, which run at no others; None if any size works.
        photos: normalised images (1, 3, H, W) float32.
    """
    rng = np.random.default_rng(0)
    if planned is None:
        return list(photos) or [rng.standard_normal((2, 3, *size), np.float32) for size in IMAGE_SIZES[descriptor]]
    extremes = [size for r in size_ranges(planned) for size in dict.fromkeys((r.smallest, r.best, r.largest))]
    if photos:
        return [resized(photo, size) for photo, size in zip(photos, cycle(extremes), strict=False)]
    return [rng.standard_normal((1, 3, *size), np.float32) for size in extremes]


def resized(image: Array, size: Size) -> Array:
    """Resize an image (1, 3, H, W) to (1, 3, *size)."""
    height, width = size
    hwc = cv2.resize(image[0].transpose(1, 2, 0), (width, height))
    return np.ascontiguousarray(hwc.transpose(2, 0, 1)[None])


def cases(model: CVNet, batches: Sequence[Array]) -> dict[str, list[Case]]:
    """Return each graph's cases from normalised images (B, 3, H, W) float32.

    The reranker scores the first image of each batch against all images of the next batch.
    """
    found: dict[str, list[Case]] = {"descriptor": [], "features": [], "reranker": []}
    unit_maps = UnitMaps(model.reranker)
    described: list[tuple[Tensor, tuple[Tensor, ...]]] = []
    for images in map(torch.from_numpy, batches):
        with torch.inference_mode():
            descriptor, feature_map = model(images)
            maps = unit_maps(feature_map)
        described.append((feature_map, maps))
        want = {"descriptor": descriptor}
        found["descriptor"].append(case({"image": images}, want))
        found["features"].append(case({"image": images}, want | {f"map_{s}": m for s, m in enumerate(maps)}))
    for (query, query_maps), (key, key_maps) in zip(described, described[1:] + described[:1], strict=True):
        with torch.inference_mode():
            logits = model.reranker(query[:1].expand(len(key), -1, -1, -1), key)
        feeds = {f"query_{s}": m[:1] for s, m in enumerate(query_maps)} | {
            f"key_{s}": m for s, m in enumerate(key_maps)
        }
        found["reranker"].append(case(feeds, {"logits": logits, "score": logits.softmax(dim=1)[:, 1]}))
    return found


def case(feeds: dict[str, Tensor], want: dict[str, Tensor]) -> Case:
    return Case(
        {name: t.cpu().numpy() for name, t in feeds.items()}, {name: t.cpu().numpy() for name, t in want.items()}
    )


def check(engine: Engine, cases: list[Case], precision: str, half_keys: bool = False) -> dict[str, float]:
    """Return the largest difference from PyTorch, by output of the engine.

    Args:
        half_keys: the engine takes candidates' maps in float16.

    Raises:
        ExportError: a difference exceeds `TOLERANCE`.
    """
    runs = [(engine.run(case.feeds), case.want) for case in cases]
    worst = {name: float(np.max([difference(got[name], want[name]) for got, want in runs])) for name in cases[0].want}
    for name, value in worst.items():
        kind = name.partition("_")[0]
        limit = TOLERANCE[precision][kind] + (HALF_KEYS.get(kind, 0.0) if half_keys else 0.0)
        if not value <= limit:  # also for NaN
            raise ExportError(
                f"{name} differs from PyTorch by {value:.1e}; expected at most {limit:.0e} in {precision}"
            )
    return worst


def difference(got: Array, want: Array) -> float:
    """Return the largest L2 distance of vectors along axis 1, or of numbers if 1-D; NaN if any value is NaN."""
    apart = np.abs(got - want) if got.ndim == 1 else np.linalg.norm(got - want, axis=1)
    return float(apart.max())
