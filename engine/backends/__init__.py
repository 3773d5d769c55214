"""The table of backends, and `open_engine`, which opens a graph's file on one of them.

A new backend needs a module in this package and a row here. Building, opening, choosing, `doctor` and `--help` read
the table.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cvnet_engine.engine import machine
from cvnet_engine.engine.errors import BackendError, CvnetWarning
from cvnet_engine.engine.geometry import GRAPH_NAMES, IMAGE_GRAPHS

if TYPE_CHECKING:  # NumPy is not loaded for the command line's help
    from cvnet_engine.engine.contract import Engine


def computes(*precisions: str, **instead: str) -> dict[str, str]:
    """Map each requested precision to the computed one: the same, except for those in `instead`."""
    return dict(zip(precisions, precisions, strict=True)) | instead


def image_graphs(precisions: dict[str, str]) -> dict[str, dict[str, str]]:
    return dict.fromkeys(IMAGE_GRAPHS, precisions)


@dataclass(frozen=True)
class Backend:
    """One way to run a graph.

    Attributes:
        precisions: graph -> requested precision -> precision of the computation.
        suffix: file suffix of a graph, a compiled plan, or the reranker's weights.
        device: `cpu` or `cuda`.
        extra: the package extra that installs the backend; empty if none is needed.
        is_here: tells if the backend is installed; its device may still be missing.
        open: file, precision of the arithmetic, CPU threads -> engine. The precision is ignored if the file fixes it.
        bind: targets -> the GPU and library versions that a file built here requires, for the manifest; empty if the
            file runs anywhere.
        require_bound: raises CvnetError if a file with these requirements cannot run here.
        takes_device: tells if the backend supports this machine's device.
        resolve_targets: values of `--targets` -> GPU architectures to compile for, on any machine; None if a file is
            compiled on the machine that runs it.
    """

    name: str
    precisions: Mapping[str, Mapping[str, str]]
    suffix: str
    device: str
    extra: str
    is_here: Callable[[], bool]
    open: Callable[[Path, str, int], Engine]
    bind: Callable[[Sequence[str]], dict[str, str]] = lambda _: {}
    require_bound: Callable[[Mapping[str, str]], None] = lambda _: None
    takes_device: Callable[[], bool] = lambda: True
    resolve_targets: Callable[[Sequence[str]], tuple[str, ...]] | None = None

    @property
    def runs_every_graph(self) -> bool:
        return set(self.precisions) == set(GRAPH_NAMES)

    def supports(self, graph: str, precision: str) -> bool:
        return precision in self.precisions.get(graph, {})


def open_onnxruntime(graph: Path, _precision: str, threads: int) -> Engine:
    from cvnet_engine.engine.backends.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(graph, cuda=False, threads=threads)


def open_onnxruntime_cuda(graph: Path, _precision: str, threads: int) -> Engine:
    from cvnet_engine.engine.backends.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(graph, cuda=True, threads=threads)


def open_openvino(graph: Path, precision: str, threads: int) -> Engine:
    from cvnet_engine.engine.backends.openvino import OpenVinoEngine

    return OpenVinoEngine(graph, precision, threads)


def open_native(weights: Path, precision: str, threads: int) -> Engine:
    from cvnet_engine.engine.backends.native.engine import NativeReranker

    return NativeReranker(weights, precision, threads)


def native_is_here() -> bool:
    from cvnet_engine.engine.backends.native.library import is_here

    return is_here()


def open_tensorrt(plan: Path, _precision: str, _threads: int) -> Engine:
    from cvnet_engine.engine.backends.tensorrt import TensorRtEngine

    return TensorRtEngine(plan)


def bind_tensorrt(_targets: Sequence[str]) -> dict[str, str]:
    from cvnet_engine.engine.backends.tensorrt import bind

    return bind()


def require_tensorrt(gpu: Mapping[str, str]) -> None:
    from cvnet_engine.engine.backends.tensorrt import require_bound

    require_bound(gpu)


def open_tensorrt_rtx(plan: Path, _precision: str, _threads: int) -> Engine:
    from cvnet_engine.engine.backends.tensorrt_rtx import TensorRtRtxEngine

    return TensorRtRtxEngine(plan)


def bind_tensorrt_rtx(targets: Sequence[str]) -> dict[str, str]:
    from cvnet_engine.engine.backends.tensorrt_rtx import bind

    return bind(targets)


def require_tensorrt_rtx(gpu: Mapping[str, str]) -> None:
    from cvnet_engine.engine.backends.tensorrt_rtx import require_bound

    require_bound(gpu)


def tensorrt_rtx_takes_device() -> bool:
    from cvnet_engine.engine.backends.tensorrt_rtx import takes_device

    return takes_device()


def tensorrt_rtx_targets(named: Sequence[str]) -> tuple[str, ...]:
    from cvnet_engine.engine.backends.tensorrt_rtx import resolve

    return resolve(named)


def installed(module: str) -> Callable[[], bool]:
    return lambda: importlib.util.find_spec(module) is not None


BACKENDS = {
    backend.name: backend
    for backend in (  # per device, the preferred backend first
        Backend(
            "native",
            {"reranker": computes("fp32", "bf16", "int8")},
            ".npz",
            "cpu",
            "",
            native_is_here,
            open_native,
        ),
        Backend(
            "onnxruntime",  # its CPU provider has no bf16, and is slower in fp16 and s8 x s8 than in fp32
            dict.fromkeys(GRAPH_NAMES, computes("fp32")),
            ".onnx",
            "cpu",
            "cpu",
            installed("onnxruntime"),
            open_onnxruntime,
        ),
        Backend(
            "openvino",
            image_graphs(computes("fp32", "bf16", "int8")) | {"reranker": computes("fp32", "bf16", int8="fp32")},
            ".onnx",
            "cpu",
            "openvino",
            installed("openvino"),
            open_openvino,
        ),
        Backend(
            "tensorrt",
            image_graphs(computes("fp32", "fp16", "int8")) | {"reranker": computes("fp32", "fp16", int8="fp16")},
            ".plan",
            "cuda",
            "tensorrt",
            installed("tensorrt"),
            open_tensorrt,
            bind_tensorrt,
            require_tensorrt,
        ),
        Backend(
            "tensorrt-rtx",
            image_graphs(computes("fp32", "fp16", "int8")) | {"reranker": computes("fp32", "fp16", int8="fp16")},
            ".plan",
            "cuda",
            "tensorrt-rtx",
            installed("tensorrt_rtx"),
            open_tensorrt_rtx,
            bind_tensorrt_rtx,
            require_tensorrt_rtx,
            tensorrt_rtx_takes_device,
            tensorrt_rtx_targets,
        ),
        Backend(
            "onnxruntime-cuda",
            dict.fromkeys(GRAPH_NAMES, computes("fp32", "fp16")),
            ".onnx",
            "cuda",
            "gpu",
            lambda: "CUDAExecutionProvider" in machine.onnxruntime_providers(),
            open_onnxruntime_cuda,
        ),
    )
}


WHOLE = tuple(name for name, backend in BACKENDS.items() if backend.runs_every_graph)  # what `--backend` takes
PRECISIONS = tuple(dict.fromkeys(p for b in BACKENDS.values() for asked in b.precisions.values() for p in asked))


def open_engine(file: Path, backend: str, precision: str = "fp32", threads: int | None = None) -> Engine:
    """The engine of a graph's file on one of `BACKENDS`.

    Args:
        file: of the backend's `suffix`.
        precision: of the arithmetic; used by OpenVINO and the native engine only, because other files fix it.
        threads: CPU threads; the default and the maximum are the CPUs that this process may use.

    Raises:
        BackendError: the backend or its device is missing, or the backend rejects the file.
    """
    return known(backend).open(file, precision, usable_threads(threads))


def usable_threads(threads: int | None) -> int:
    """The requested threads, at most one per usable CPU; more would wait for each other."""
    usable = machine.usable_cpus()
    if threads and threads > usable:
        note = f"{threads} threads were requested; {usable} are used, one per CPU that this process may use"
        warnings.warn(note, CvnetWarning, stacklevel=2)
    return min(threads or usable, usable)


def known(backend: str) -> Backend:
    """Look up a backend by name.

    Raises:
        BackendError: the name is unknown.
    """
    if backend not in BACKENDS:
        raise BackendError(f"backend {backend!r} is unknown; expected one of {', '.join(BACKENDS)}")
    return BACKENDS[backend]
