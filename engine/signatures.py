"""Signatures (inputs and outputs) of the graphs, the same for every file format and backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cvnet_engine.engine.contract import Engine, TensorSpec
from cvnet_engine.engine.errors import BackendError
from cvnet_engine.engine.geometry import AREA_SCALES, DESCRIPTOR_DIM, MAP_DIM

Signature = tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]]  # inputs, outputs


def maps(side: str, batch: int | str) -> dict[str, TensorSpec]:
    """Return the tensor specs of one side's feature maps, by name; each scale has its own height and width."""
    return {
        f"{side}_{s}": TensorSpec("floating", (batch, MAP_DIM, f"{side}_height_{s}", f"{side}_width_{s}"))
        for s in range(len(AREA_SCALES))
    }


IMAGE = {"image": TensorSpec("float32", ("batch", 3, "height", "width"))}
DESCRIPTOR = {"descriptor": TensorSpec("floating", ("batch", DESCRIPTOR_DIM))}
SCORES = {"logits": TensorSpec("floating", ("batch", 2)), "score": TensorSpec("floating", ("batch",))}
SIGNATURES: dict[str, Signature] = {
    "descriptor": (IMAGE, DESCRIPTOR),
    "features": (IMAGE, DESCRIPTOR | maps("map", "batch")),
    "reranker": (maps("query", 1) | maps("key", "batch"), SCORES),
}


def require_signature(graph: str, engine: Engine, file: Path) -> None:
    """Raise BackendError unless an engine's inputs and outputs have the graph's names, dtypes, ranks, fixed axes."""
    for found, expected in zip((engine.inputs, engine.outputs), SIGNATURES[graph], strict=True):
        fits = list(found) == list(expected) and all(is_like(found[name], spec) for name, spec in expected.items())
        if not fits:
            raise BackendError(f"{file}: {graph} of {text(found)}; expected {text(expected)}: build the bundle again")


def is_like(found: TensorSpec, expected: TensorSpec) -> bool:
    """Return True if dtype, rank and all axes of fixed length are as expected."""
    dtypes = ("float16", "float32", "floating") if expected.dtype == "floating" else (expected.dtype,)
    return (
        found.dtype in dtypes
        and len(found.shape) == len(expected.shape)
        and all(axis == want for axis, want in zip(found.shape, expected.shape, strict=True) if isinstance(want, int))
    )


def text(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"{name} {spec.dtype} {'x'.join(map(str, spec.shape))}" for name, spec in specs.items())
