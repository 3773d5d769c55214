"""The native pair scorer as an engine: the reranker without a graph, compiled for the processor it runs on."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from engine.backends.native.library import MapPointers, library
from engine.contract import Array, Closing, TensorSpec, check_feeds
from engine.errors import BackendError
from engine.geometry import AREA_SCALES, MAP_DIM

PRECISIONS = {"fp32": 0, "bf16": 1, "int8": 2}  # of every product; sums and statistics are float32
CONVOLUTIONS = ("1.0", "2.0", "2.3", "3.0", "3.3", "3.6", "4.0", "4.3", "4.6")  # block.index, in the order of use


class NativeReranker(Closing):
    """An `Engine` with the inputs and outputs of the reranker graph. Takes maps in float16 as they are stored."""

    def __init__(self, weights: Path, precision: str, threads: int) -> None:
        """
        Args:
            weights: `.npz` of the published `cv_learner` tensors, without that prefix.
        """
        self._library = library()
        if not self._library.cvnet_accelerated(PRECISIONS[precision]):
            raise BackendError(f"this processor has no {precision} instructions for the native pair scorer; use fp32")
        with np.load(weights) as stored:
            tensors = [np.ascontiguousarray(stored[name], np.float32) for name in tensor_names()]
        pointers = (ctypes.c_void_p * len(tensors))(*(t.ctypes.data for t in tensors))
        self._handle: int | None = self._library.cvnet_create(pointers, PRECISIONS[precision], threads)
        if not self._handle:
            raise BackendError(f"{weights}: the native pair scorer could not be set up; it needs memory and threads")
        self._query: Array | None = None  # the full-scale map of the query that is prepared
        self.inputs = {
            f"{side}_{s}": TensorSpec("floating", (batch, MAP_DIM, f"{side}_height_{s}", f"{side}_width_{s}"))
            for side, batch in (("query", 1), ("key", "batch"))
            for s in range(len(AREA_SCALES))
        }
        self.outputs = {"logits": TensorSpec("float32", ("batch", 2)), "score": TensorSpec("float32", ("batch",))}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        check_feeds(feeds, self.inputs)
        queries, keys = ([np.ascontiguousarray(feeds[f"{side}_{s}"]) for s in range(3)] for side in ("query", "key"))
        if self._query is not feeds["query_2"]:  # one query meets many batches of keys
            self._library.cvnet_prepare_query(self._handle, *side_arguments(queries, 0))
            self._query = feeds["query_2"]
        logits = np.empty((len(keys[0]), 2), np.float32)
        for row, out in enumerate(logits):
            self._library.cvnet_score(self._handle, *side_arguments(keys, row), out.ctypes.data)
        return {"logits": logits, "score": softmax_of_second(logits)}

    def close(self) -> None:
        if self._handle:
            self._library.cvnet_free(self._handle)
            self._handle = None


def tensor_names() -> list[str]:
    """Names of the learner's tensors, in the order in which the C code takes them."""
    names = []
    for position in CONVOLUTIONS:
        block, index = position.split(".")
        convolution, norm = f"block{block}.{index}", f"block{block}.{int(index) + 1}"
        names += [f"{convolution}.conv{side}.{leaf}" for side in (1, 2) for leaf in ("weight", "bias")]
        names += [f"{norm}.{leaf}" for leaf in ("weight", "bias")]
    return names + [f"mlp.{layer}.{leaf}" for layer in (0, 2) for leaf in ("weight", "bias")]


def side_arguments(maps: Sequence[Array], row: int) -> tuple[int, int, ctypes.Array[ctypes.c_void_p], int]:
    """One image of a batch of maps as the C code takes it: full-scale size, three addresses, whether in float16."""
    height, width = maps[-1].shape[2:]
    addresses = MapPointers(*(m[row].ctypes.data for m in maps))
    return height, width, addresses, int(maps[0].dtype == np.float16)


def softmax_of_second(logits: Array) -> Array:
    """(B, 2) -> (B,) float32: the second class's probability."""
    return np.asarray(np.exp(-np.logaddexp(0, logits[:, 0] - logits[:, 1])), np.float32)
