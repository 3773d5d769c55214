"""The interface of an engine: named arrays in, named arrays out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cvnet_engine.engine.errors import BackendError

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
    """An engine's input or output: numpy dtype name or `floating` for any, and a shape whose free axes are named."""

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
        """Every output by name.

        Raises:
            BackendError: a feed is missing or unknown, or its dtype or shape differs from `inputs`.
        """

    def close(self) -> None:
        """Release what the engine holds; it cannot run afterwards."""

    def __enter__(self) -> Self:
        """The engine itself, closed at the end of the block."""

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
        """Begin to copy feeds of later runs, from any thread, while another run goes on.

        A run with the same array objects does not copy them again while the device holds them. It holds two arrays per
        input, and the arrays must not change.
        """


def check_feeds(feeds: Mapping[str, Array], inputs: Mapping[str, TensorSpec]) -> None:
    """Raise BackendError unless `feeds` are exactly `inputs`: names, dtypes, ranks, and equally named axes equal."""
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
