"""The interface of engines: named arrays in, named arrays out; and the inputs and outputs of each graph."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cvnet_engine.engine.errors import BackendError
from cvnet_engine.engine.geometry import AREA_SCALES, DESCRIPTOR_DIM, MAP_DIM

Array = NDArray[Any]  # shapes and dtypes stand in comments and docstrings


class Closing:
    """Base of objects that hold memory, files or threads until `close` or the end of a `with` block."""

    def close(self) -> None:
        """Release all resources; no other method may be called afterwards."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class TensorSpec:
    """Input or output of an engine: the name of a NumPy dtype or `floating`, and the shape; free axes have names."""

    dtype: str
    shape: tuple[int | str, ...]


class Engine(Protocol):
    """A graph ready to run. One engine serves one thread at a time."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Name -> dtype and shape of every array to feed, in order."""

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Name -> dtype and shape of every output array, in order."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output by name.

        Raises:
            BackendError: a feed is missing or unknown, or its dtype or shape differs from `inputs`.
        """

    def close(self) -> None:
        """Release all resources; the engine cannot run afterwards."""

    def __enter__(self) -> Self:
        """Return the engine, which is closed at the end of the block."""

    def __exit__(self, *_: object) -> None: ...


class EnginePool(Closing):
    """An `Engine` that any thread may use, made of one or more engines of a graph that serve one thread at a time.

    A run uses an idle engine, and waits for one if all are busy. Closing the pool waits for the runs and closes its
    engines. A forked child process cannot use the pool, because the engines' threads run in the parent only.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.inputs, self.outputs = engines[0].inputs, engines[0].outputs
        self._engines = tuple(engines)
        self._process = os.getpid()
        self._idle: SimpleQueue[Engine | None] = SimpleQueue()  # None: the pool is closed
        self._closing = Lock()
        self._closed = False
        for engine in engines:
            self._idle.put(engine)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        engine = self._take()
        try:
            return engine.run(feeds)
        finally:
            self._idle.put(engine)

    def upload(self, feeds: Mapping[str, Array]) -> None:
        """Begin to copy feeds of later runs to the device; see `Uploading`. Engines without a device ignore it."""
        for engine in self._engines:
            if isinstance(engine, Uploading):
                engine.upload(feeds)

    def close(self) -> None:
        if self._process != os.getpid():
            return  # the engines belong to the parent process
        with self._closing, contextlib.ExitStack() as opened:  # closes the rest if one fails
            if not self._closed:
                self._closed = True
                for _ in self._engines:
                    opened.callback(self._take().close)
                self._idle.put(None)

    def _take(self) -> Engine:
        if self._process != os.getpid():
            raise BackendError(
                "these engines were opened before this process was forked; open the bundle in the child process"
            )
        engine = self._idle.get()
        if engine is None:
            self._idle.put(None)
            raise BackendError("the engines are closed; open the bundle again")
        return engine


@runtime_checkable
class Uploading(Protocol):
    """Interface of engines that copy their feeds to a device."""

    def upload(self, feeds: Mapping[str, Array]) -> None:
        """Start to copy feeds of later runs, from any thread, during another run.

        A later run with the same array objects does not copy them again. The device keeps two arrays per input; the
        arrays must not change.
        """


def check_feeds(feeds: Mapping[str, Array], inputs: Mapping[str, TensorSpec]) -> None:
    """Raise BackendError unless names, dtypes and ranks are those of `inputs`, and axes of one name have one length."""
    if feeds.keys() != inputs.keys():
        raise BackendError(f"inputs {sorted(feeds)} were fed; expected {sorted(inputs)}")
    sizes: dict[str, int] = {}
    for name, spec in inputs.items():
        array = feeds[name]
        fits = np.issubdtype(array.dtype, getattr(np, spec.dtype)) and array.ndim == len(spec.shape)
        if not fits or any(
            size != sizes.setdefault(str(axis), size if isinstance(axis, str) else axis)
            for size, axis in zip(array.shape, spec.shape, strict=True)
        ):
            shape = "x".join(map(str, spec.shape))
            raise BackendError(f"input {name!r} is {array.dtype} {array.shape}; expected {spec.dtype} {shape}")


Signature = tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]]  # inputs, outputs


def map_specs(side: str, batch: int | str) -> dict[str, TensorSpec]:
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
    "features": (IMAGE, DESCRIPTOR | map_specs("map", "batch")),
    "reranker": (map_specs("query", 1) | map_specs("key", "batch"), SCORES),
}


def require_signature(graph: str, engine: Engine, file: Path) -> None:
    """Raise BackendError unless an engine's inputs and outputs have the graph's names, dtypes, ranks, fixed axes."""
    for found, expected in zip((engine.inputs, engine.outputs), SIGNATURES[graph], strict=True):
        fits = list(found) == list(expected) and all(is_like(found[name], spec) for name, spec in expected.items())
        if not fits:
            raise BackendError(
                f"{file}: {graph} of {describe(found)}; expected {describe(expected)}: build the bundle again"
            )


def is_like(found: TensorSpec, expected: TensorSpec) -> bool:
    """Return True if dtype, rank and all axes of fixed length are as expected."""
    dtypes = ("float16", "float32", "floating") if expected.dtype == "floating" else (expected.dtype,)
    return (
        found.dtype in dtypes
        and len(found.shape) == len(expected.shape)
        and all(axis == want for axis, want in zip(found.shape, expected.shape, strict=True) if isinstance(want, int))
    )


def describe(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"{name} {spec.dtype} {'x'.join(map(str, spec.shape))}" for name, spec in specs.items())
