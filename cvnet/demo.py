"""The demonstration model: small, trained and part of the package (docs/demo-model.md).

It is a narrow network stored in the published tensors and shapes, so most values are zero. For each tensor the file
keeps the non-zero part: its first channels and the middle of its kernel, with matrices and kernels in float16 and
vectors in float32. Omitted channels are zero after every norm, and omitted residual blocks add nothing.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cvnet_engine.engine.errors import WeightsError

NAME = "demo"  # value of `--weights`
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
        WeightsError: the file is missing or has another digest.
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
    """A published tensor from its stored part: first channels, middle of the kernel; None if nothing is stored."""
    if name.endswith("num_batches_tracked"):
        return np.array(0, np.int64)
    tensor = np.full(shape, 1.0 if name.endswith("running_var") else 0.0, np.float32)
    if part is not None:
        tensor[tuple(slice(*bounds) for bounds in place(part.shape, shape))] = part
    return tensor


def place(part: tuple[int, ...], shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Bounds (first, last + 1) of a part in its tensor per axis: first channels, middle of the kernel."""
    starts = [0 if axis < 2 else (size - kept) // 2 for axis, (kept, size) in enumerate(zip(part, shape, strict=True))]
    return [(start, start + kept) for start, kept in zip(starts, part, strict=True)]
