"""What an engine is, whatever runs it: named arrays in, named arrays out."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import BackendError

Array = NDArray[Any]  # shapes and dtypes stand in comments and docstrings
CGROUP = Path("/sys/fs/cgroup")
BACKENDS = ("onnxruntime", "openvino", "native", "onnxruntime-cuda", "tensorrt")


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
        """Name -> dtype and shape of every array that comes back, in order."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Every output by name.

        Raises:
            BackendError: a feed that is missing, unknown, or of another dtype or shape than `inputs` says.
        """

    def close(self) -> None:
        """Release what the engine holds; it cannot run afterwards."""


def open_engine(graph: Path, backend: str, precision: str = "fp32", threads: int | None = None) -> Engine:
    """The engine of a graph file on one of `BACKENDS`.

    Args:
        graph: an `.onnx` file; for `native` the reranker's weights as `.npz`, for `tensorrt` a plan.
        precision: of the arithmetic, where the file leaves it open, as it does on OpenVINO and the native engine.
        threads: CPU threads; by default as many as this process may use.

    Raises:
        BackendError: the backend or its device is not there, or does not take the graph.
    """
    threads = threads or usable_cpus()
    match backend:
        case "onnxruntime" | "onnxruntime-cuda":
            from engine.onnxruntime_session import OnnxRuntimeEngine

            return OnnxRuntimeEngine(graph, cuda=backend == "onnxruntime-cuda", threads=threads)
        case "openvino":
            from engine.openvino_session import OpenVinoEngine

            return OpenVinoEngine(graph, precision, threads)
        case "native":
            from engine.native_session import NativeReranker

            return NativeReranker(graph, precision, threads)
        case "tensorrt":
            from engine.tensorrt_session import TensorRtEngine

            return TensorRtEngine(graph)
        case _:
            raise BackendError(f"backend {backend!r} is unknown; expected one of {', '.join(BACKENDS)}")


def usable_cpus() -> int:
    """CPUs this process may use: those it may run on, within its container's share of their time."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, cpu_quota(CGROUP))))


def cpu_quota(cgroup: Path) -> float:
    """CPUs' worth of time that a cgroup (version 2) grants, infinite without a limit; more threads are throttled."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no such file; "max"
        return math.inf


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
