"""Built-in weights by published name: the demonstration model and seeded models.

The demonstration model (`demo`, docs/demo-model.md) is a narrow network in the published tensors and shapes, so most
values are zero. For each tensor the file keeps the non-zero part: its first channels and the middle of its kernel, with
matrices and kernels in float16 and vectors in float32. Omitted channels are zero after every norm, and omitted residual
blocks add nothing.

A seeded model (`seeded[:N]`) is untrained and the same on every machine, from NumPy's PCG64 alone. The scale of the
values keeps activations finite through the residual stages. It serves parity checks, benchmarks and tests without a
real checkpoint of 110-180 MB.
"""

from __future__ import annotations

import hashlib
import io
import re
import zlib
from collections.abc import Mapping
from math import sqrt
from pathlib import Path

import numpy as np

from cvnet_engine.engine.errors import WeightsError

DEMO = "demo"  # value of `--weights`
DEMO_DEPTH = 50
DEMO_FILE = Path(__file__).with_name("demo.npz")
DEMO_SHA256 = "884600e2c91bbcaced00ff516a6af1f329726a642e51e107d4593fa6e7973abd"


def is_built_in(weights: str) -> bool:
    """Tell if `weights` names a model that needs no checkpoint file."""
    return weights == DEMO or seed_of(weights) is not None


def seed_of(weights: str) -> int | None:
    """The seed of `seeded[:N]`, 0 without N; None for anything else (a file).

    Raises:
        WeightsError: `seeded:` followed by anything but a whole number.
    """
    if not re.match(r"seeded(:|$)", weights):
        return None
    found = re.fullmatch(r"seeded(?::(\d+))?", weights)
    if found is None:
        raise WeightsError(f"weights {weights!r}: expected 'seeded' or 'seeded:N' with a whole number N")
    return int(found[1] or 0)


def state_dict(weights: str, depth: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Every tensor named in `shapes` of a built-in model; weights and buffers are float32.

    Raises:
        WeightsError: no demonstration model of that depth, or its file is missing or changed.
    """
    seed = seed_of(weights)
    if seed is not None:
        return {name: seeded_tensor(name, shape, seed) for name, shape in shapes.items()}
    if depth != DEMO_DEPTH:
        raise WeightsError(f"the demonstration model is a ResNet-{DEMO_DEPTH}; use --depth {DEMO_DEPTH}")
    stored = read_demo()
    return {name: demo_tensor(name, shape, stored.get(name)) for name, shape in shapes.items()}


def read_demo() -> dict[str, np.ndarray]:
    """The stored parts of the demonstration model by name.

    Raises:
        WeightsError: the file is missing or has another digest.
    """
    try:
        content = DEMO_FILE.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{DEMO_FILE}: the demonstration model is not readable ({error.strerror}); install again"
        ) from error
    if hashlib.sha256(content).hexdigest() != DEMO_SHA256:
        raise WeightsError(f"{DEMO_FILE}: not the demonstration model of this version (SHA-256 differs); install again")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def demo_tensor(name: str, shape: tuple[int, ...], part: np.ndarray | None) -> np.ndarray:
    """A published tensor from its stored part: first channels, middle of the kernel; None if nothing is stored."""
    if name.endswith("num_batches_tracked"):
        return np.array(0, np.int64)
    tensor = np.full(shape, 1.0 if name.endswith("running_var") else 0.0, np.float32)
    if part is not None:
        kernel = [(size - kept) // 2 for size, kept in zip(shape[2:], part.shape[2:], strict=True)]
        starts = [0, 0, *kernel][: len(shape)]
        tensor[tuple(slice(start, start + kept) for start, kept in zip(starts, part.shape, strict=True))] = part
    return tensor


def generator(seed: int, name: str) -> np.random.Generator:
    """One random stream per name, so that a tensor's values do not depend on the others."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def seeded_tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = generator(seed, name)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.array(1, np.int64)
    if leaf == "running_var":
        return rng.uniform(0.6, 1.4, shape).astype(np.float32)
    if leaf in ("running_mean", "bias"):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if leaf == "p":  # GeM's exponent
        return np.full(shape, 2.8, np.float32)
    if len(shape) == 1:  # a norm's weight; the last of a bottleneck is small, to keep the residual sum in bounds
        scale = 0.35 if ".c_bn." in name else 1.0
        return (scale * rng.uniform(0.8, 1.2, shape)).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    gain = 1.0 if name.endswith("fc.weight") else 2.0  # He initialisation before a ReLU
    return (sqrt(gain / fan_in) * rng.standard_normal(shape)).astype(np.float32)
