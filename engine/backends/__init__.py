"""Every backend in one table, and `open_engine`, which opens a graph's file on one of them.

A new backend is a module beside this one and a row here: building, opening, choosing, `doctor` and the command line's
help read the table.
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
    """Precision asked for -> precision computed in: the same, but for those in `instead`."""
    return dict(zip(precisions, precisions, strict=True)) | instead


def image_graphs(precisions: dict[str, str]) -> dict[str, dict[str, str]]:
    return dict.fromkeys(IMAGE_GRAPHS, precisions)


@dataclass(frozen=True)
class Backend:
    """One way to run a graph.

    Attributes:
        precisions: graph -> precision asked for -> precision that it is computed in.
        suffix: of the file it runs: a graph, a compiled plan, or the reranker's bare weights.
        device: `cpu` or `cuda`.
        extra: of the package, that brings it; empty where none is needed.
        is_here: whether it is installed; whether its device is there is another question.
        open: a file, the precision of its arithmetic where the file leaves that open, CPU threads -> an engine.
        bind: what files made here, for some targets, are bound to, for the manifest; nothing where they run anywhere.
        require_bound: raises CvnetError where files bound so cannot run here.
        takes_device: whether it runs on the device that is here.
        resolve_targets: what `--targets` says -> GPU architectures to compile for ahead of time, on any machine; None
            where a file is made on the machine that runs it.
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
    for backend in (  # the preferred ones of a device first
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
        precision: of the arithmetic, where the file leaves it open, as it does on OpenVINO and the native engine.
        threads: CPU threads; by default, and at most, as many as this process may use.

    Raises:
        BackendError: the backend or its device is not there, or does not take the file.
    """
    return known(backend).open(file, precision, usable_threads(threads))


def usable_threads(threads: int | None) -> int:
    """As many threads as are asked for and processors are there for; more would wait for each other."""
    usable = machine.usable_cpus()
    if threads and threads > usable:
        note = f"{threads} threads were asked for; {usable} are used, one for each processor that this process may use"
        warnings.warn(note, CvnetWarning, stacklevel=2)
    return min(threads or usable, usable)


def known(backend: str) -> Backend:
    """A backend by name.

    Raises:
        BackendError: there is none of that name.
    """
    if backend not in BACKENDS:
        raise BackendError(f"backend {backend!r} is unknown; expected one of {', '.join(BACKENDS)}")
    return BACKENDS[backend]
