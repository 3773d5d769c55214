"""The demonstration model: a small trained one that comes with the package (docs/demo-model.md).

It has the published tensors in the published shapes, most of them zero: a narrow network laid into the wide one. Of
each tensor the file keeps the part that is not zero, its first channels and the middle of its kernel, matrices and
kernels in float16, vectors in float32. Channels that are left out are zero behind every norm, and residual blocks
that are left out add nothing.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cvnet_engine.engine.errors import WeightsError

NAME = "demo"  # as `--weights` names it
DEPTH = 50
FILE = Path(__file__).with_name("demo.npz")
SHA256 = "884600e2c91bbcaced00ff516a6af1f329726a642e51e107d4593fa6e7973abd"


def state_dict(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Every tensor named in `shapes` (published names), float32.

    Raises:
        WeightsError: the file is missing or changed.
    """
    stored = read(FILE, SHA256)
    return {name: whole(name, shape, stored.get(name)) for name, shape in shapes.items()}


def read(file: Path, sha256: str) -> dict[str, np.ndarray]:
    """The stored parts by name.

    Raises:
        WeightsError: no such file, or not the one with that digest.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{file}: the demonstration model is not readable ({error.strerror}); install again"
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise WeightsError(f"{file}: not the demonstration model of this version (SHA-256 differs); install again")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def whole(name: str, shape: tuple[int, ...], part: np.ndarray | None) -> np.ndarray:
    """A published tensor from its stored part: first channels, middle of the kernel; None where nothing is stored."""
    if name.endswith("num_batches_tracked"):
        return np.array(0, np.int64)
    tensor = np.full(shape, 1.0 if name.endswith("running_var") else 0.0, np.float32)
    if part is not None:
        tensor[tuple(slice(*bounds) for bounds in place(part.shape, shape))] = part
    return tensor


def place(part: tuple[int, ...], shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Where a part lies in its tensor, (first, last + 1) of each axis: at the start of channels, amid a kernel."""
    starts = [0 if axis < 2 else (size - kept) // 2 for axis, (kept, size) in enumerate(zip(part, shape, strict=True))]
    return [(start, start + kept) for start, kept in zip(starts, part, strict=True)]
