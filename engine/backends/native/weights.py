"""The reranker's weights as the native pair scorer takes them: the published tensors, each of its published shape.

Beside them may be a basis for maps of fewer dimensions (decision 030).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import BackendError
from cvnet_engine.engine.files import open_regular
from cvnet_engine.engine.geometry import MAP_DIM, PAIR_LAYERS, REDUCED_DIMS

PLACES = ("1.0", "2.0", "2.3", "3.0", "3.3", "3.6", "4.0", "4.3", "4.6")  # block.index of `PAIR_LAYERS`; norms are next
BASIS = "basis"
ORTHONORMAL = 1e-4  # largest difference of products of a basis's columns from 0 and 1
LINEARS = (("mlp.0", 128, 128), ("mlp.2", 128, 2))  # inputs, outputs


@dataclass(frozen=True)
class Weights:
    """What the pair scorer works with, float32 and contiguous.

    Attributes:
        tensors: in the order of `shapes`.
        basis: (256, d), orthonormal columns: what maps are reduced to before they are correlated; None for nothing less
            than all of them, as published.
    """

    tensors: list[Array]
    basis: Array | None = None

    @property
    def dim(self) -> int:
        """How many dimensions are correlated."""
        return MAP_DIM if self.basis is None else self.basis.shape[1]


def shapes() -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor, in the order in which the C code takes them."""
    return dict(_shapes())


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    for place, (inputs, outputs, kernel, _) in zip(PLACES, PAIR_LAYERS, strict=True):
        block, index = place.split(".")
        for side in (1, 2):
            yield f"block{block}.{index}.conv{side}.weight", (outputs, inputs, kernel, kernel)
            yield f"block{block}.{index}.conv{side}.bias", (outputs,)
        for leaf in ("weight", "bias"):
            yield f"block{block}.{int(index) + 1}.{leaf}", (outputs,)
    for name, inputs, outputs in LINEARS:
        yield f"{name}.weight", (outputs, inputs)
        yield f"{name}.bias", (outputs,)


def load(file: Path) -> Weights:
    """The weights of an `.npz`.

    Raises:
        BackendError: a name, shape or dtype that differs, a value that is not finite, or no such file at all.
    """
    try:
        with open_regular(file) as stream, np.load(stream) as stored:
            names = [name for name in stored.files if name != BASIS]
            if set(names) != set(shapes()):
                raise refused(file, f"{len(names)} tensors; expected the {len(shapes())} of the reranker")
            tensors = [checked(file, name, stored[name], shape) for name, shape in shapes().items()]
            return Weights(tensors, checked_basis(file, stored[BASIS]) if BASIS in stored else None)
    except (BackendError, MemoryError):
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise refused(file, f"not readable ({error})") from error


def checked(file: Path, name: str, tensor: Array, shape: tuple[int, ...]) -> Array:
    if tensor.shape != shape or tensor.dtype != np.float32:
        raise refused(file, f"{name} is {tensor.dtype} {tensor.shape}; expected float32 {shape}")
    if not np.isfinite(tensor).all():
        raise refused(file, f"{name} holds values that are not finite")
    return np.require(tensor, requirements=["C", "A"])


def checked_basis(file: Path, basis: Array) -> Array:
    """(256, d) of one of `REDUCED_DIMS`."""
    dims = ", ".join(map(str, REDUCED_DIMS))
    if basis.ndim != 2 or basis.shape[1] not in REDUCED_DIMS:
        raise refused(file, f"{BASIS} is {basis.shape}; expected {MAP_DIM} rows and one of {dims} columns")
    found = checked(file, BASIS, basis, (MAP_DIM, basis.shape[1]))
    if np.abs(found.T @ found - np.eye(basis.shape[1])).max() > ORTHONORMAL:
        raise refused(file, f"the columns of {BASIS} are not orthonormal")
    return found


def refused(file: Path, reason: str) -> BackendError:
    return BackendError(f"{file}: {reason}; build the bundle again")
