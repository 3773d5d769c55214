"""The seeded model: untrained weights, the same on every machine, from numpy's PCG64 alone.

The scale of the values keeps activations finite through the residual stages. It serves parity checks, benchmarks and
tests without a real checkpoint of 110-180 MB.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from math import sqrt

import numpy as np

from cvnet_engine.engine.errors import WeightsError


def parse(weights: str) -> int | None:
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


def state_dict(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Every tensor named in `shapes` (published names), float32."""
    return {name: tensor(name, shape, seed) for name, shape in shapes.items()}


def generator(seed: int, name: str) -> np.random.Generator:
    """One random stream per name, so that a tensor's values do not depend on the others."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
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
