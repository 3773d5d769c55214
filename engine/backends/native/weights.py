"""The reranker's weights for the native pair scorer: the published tensors in their published shapes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import BackendError
from cvnet_engine.engine.files import open_regular
from cvnet_engine.engine.geometry import PAIR_LAYERS

PLACES = ("1.0", "2.0", "2.3", "3.0", "3.3", "3.6", "4.0", "4.3", "4.6")  # block.index in `PAIR_LAYERS`; norm: +1
LINEARS = (("mlp.0", 128, 128), ("mlp.2", 128, 2))  # inputs, outputs


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor by name, in the order that the C code expects."""
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


def load(file: Path) -> list[Array]:
    """Return the tensors of an `.npz`, float32 and contiguous, in the order of `shapes`.

    Raises:
        BackendError: an unexpected name, shape or dtype, a value that is not finite, or a file that is not readable.
    """
    try:
        with open_regular(file) as stream, np.load(stream) as stored:
            if set(stored.files) != set(shapes()):
                raise refused(file, f"{len(stored.files)} tensors; expected the {len(shapes())} of the reranker")
            return [checked(file, name, stored[name], shape) for name, shape in shapes().items()]
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


def refused(file: Path, reason: str) -> BackendError:
    return BackendError(f"{file}: {reason}; build the bundle again")
