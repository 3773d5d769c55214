"""The native pair scorer's engine: the reranker in C, compiled for the processor that runs it."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cvnet_engine.engine.backends.native.library import Maps, Tensor, expect, library
from cvnet_engine.engine.backends.native.weights import load
from cvnet_engine.engine.contract import SIGNATURES, Array, Closing, TensorSpec, check_feeds
from cvnet_engine.engine.errors import BackendError
from cvnet_engine.engine.geometry import AREA_SCALES, unit_map_sizes

PRECISIONS = {"fp32": 0, "bf16": 1, "int8": 2}  # of all products; sums and normalisation are float32


class NativeReranker(Closing):
    """An `Engine` with the inputs and outputs of the reranker graph. Accepts maps in float16 or float32.

    The query's part of the computation is cached and reused while the same query maps are fed.
    """

    def __init__(self, weights: Path, precision: str, threads: int) -> None:
        """
        Args:
            weights: `.npz` of the published `cv_learner` tensors, named without that prefix; see `weights.shapes`.

        Raises:
            BackendError: the library is unavailable, this processor lacks the precision's instructions, the weights
                are invalid, or threads cannot be started.
            OutOfMemoryError: too little memory.
        """
        self._handle = ctypes.c_void_p()  # the model in C
        self._query: list[Array] = []  # copies of the cached query's maps
        tensors = load(weights)
        self._library = library()
        if not accelerated(precision):
            raise BackendError(f"this processor has no {precision} instructions for the native pair scorer; use fp32")
        views = (Tensor * len(tensors))(*(Tensor(t.ctypes.data, t.size) for t in tensors))
        expect(
            self._library.cvnet_create(views, len(views), PRECISIONS[precision], threads, ctypes.byref(self._handle))
        )
        self.inputs, _ = SIGNATURES["reranker"]
        self.outputs = {"logits": TensorSpec("float32", ("batch", 2)), "score": TensorSpec("float32", ("batch",))}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if not self._handle:
            raise BackendError("the native pair scorer is closed; open it again")
        check_feeds(feeds, self.inputs)
        query, keys = maps_of("query", feeds), maps_of("key", feeds)
        self._prepare(query)
        logits = np.empty((len(keys[0]), 2), np.float32)
        images = (Maps * len(logits))(*(image(keys, row) for row in range(len(logits))))
        expect(self._library.cvnet_score(self._handle, images, len(logits), logits.ctypes.data))
        return {"logits": logits, "score": softmax_of_second(logits)}

    def close(self) -> None:
        if self._handle:
            self._library.cvnet_free(self._handle)
            self._handle = ctypes.c_void_p()

    def _prepare(self, query: list[Array]) -> None:
        if self._query and all(map(same, query, self._query)):
            return
        self._query = []
        expect(self._library.cvnet_prepare_query(self._handle, image(query, 0)))
        self._query = [m.copy() for m in query]


def accelerated(precision: str) -> bool:
    """Return True if this processor has the instructions that make a precision faster than fp32.

    Raises:
        BackendError: the library is unavailable.
    """
    return bool(library().cvnet_accelerated(PRECISIONS[precision]))


def maps_of(side: str, feeds: Mapping[str, Array]) -> list[Array]:
    """Return one side's maps (B, 256, h_s, w_s), contiguous.

    Raises:
        BackendError: the maps differ in dtype, are neither float16 nor float32, or do not have the sizes of one image.
    """
    maps = [feeds[f"{side}_{s}"] for s in range(len(AREA_SCALES))]
    if maps[0].dtype not in (np.float16, np.float32) or any(m.dtype != maps[0].dtype for m in maps):
        dtypes = ", ".join(str(m.dtype) for m in maps)
        raise BackendError(f"{side} maps are {dtypes}; expected float16, or float32, for all of an image's maps")
    sizes = [m.shape[2:] for m in maps]
    if sizes != unit_map_sizes(sizes[-1]) or not all(map(all, sizes)):
        raise BackendError(
            f"{side} maps are of {', '.join(f'{h}x{w}' for h, w in sizes)} positions, which belong to no image; "
            "expected engine.geometry.unit_map_sizes of the last, all of at least one position"
        )
    return [np.require(m, requirements=["C", "A"]) for m in maps]


def image(images: Sequence[Array], row: int) -> Maps:
    """Return the C structure of one image in a batch. It holds addresses: the maps must outlive it."""
    found = Maps(is_half=int(images[0].dtype == np.float16))
    for s, m in enumerate(images):
        found.grid[s][:] = m.shape[2:]
        found.map[s] = m[row].ctypes.data
    return found


def same(one: Array, other: Array) -> bool:
    """Return True if two contiguous arrays are equal in every bit. 256 channels make whole 64-bit words."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return np.array_equal(one.reshape(-1).view(np.uint64), other.reshape(-1).view(np.uint64))


def softmax_of_second(logits: Array) -> Array:
    """Return the second class's probability (B,) float32 from logits (B, 2)."""
    return np.asarray(np.exp(-np.logaddexp(0, logits[:, 0] - logits[:, 1])), np.float32)
