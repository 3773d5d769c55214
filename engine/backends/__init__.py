"""The table of backends, and `open_engine`, which opens a graph's file on one of them.

A new backend needs a module in this package and a row here. Building, opening, choosing, `doctor` and `--help` read
the table. A backend's library is imported only when it is used.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvnet_engine.engine import machine
from cvnet_engine.engine.errors import BackendError, CvnetWarning
from cvnet_engine.engine.geometry import GRAPH_NAMES, IMAGE_GRAPHS

if TYPE_CHECKING:  # NumPy is not loaded for the command line's help
    from cvnet_engine.engine.contract import Engine


def computes(*precisions: str, **instead: str) -> dict[str, str]:
    """Map each requested precision to the computed one: the same, except for those in `instead`."""
    return dict(zip(precisions, precisions, strict=True)) | instead


def image_graphs(precisions: dict[str, str]) -> dict[str, dict[str, str]]:
    """Assign the precisions to both image graphs."""
    return dict.fromkeys(IMAGE_GRAPHS, precisions)


@dataclass(frozen=True)
class Backend:
    """One way to run a graph.

    Attributes:
        precisions: graph -> requested precision -> precision of the computation.
        suffix: file suffix of a graph, a compiled plan, or the reranker's weights.
        device: `cpu` or `cuda`.
        extra: the package extra that installs the backend; empty if none is needed.
        is_here: returns True if the backend is installed; its device may still be missing.
        open: file, precision of the arithmetic, CPU threads -> engine. The precision is ignored if the file fixes it.
        bind: targets -> the GPU and library versions that a file built here requires, for the manifest; empty if the
            file runs anywhere.
        require_bound: raises CvnetError if a file with these requirements cannot run here.
        takes_device: returns True if the backend supports this machine's device.
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


def late(module: str, function: str) -> Callable[..., Any]:
    """Return a function of one of this package's modules, which is imported when the function is called."""
    return lambda *arguments: getattr(importlib.import_module(f"{__name__}.{module}"), function)(*arguments)


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
            late("native.library", "is_here"),
            late("native.engine", "NativeReranker"),
        ),
        Backend(
            "onnxruntime",  # its CPU provider has no bf16, and is slower in fp16 and s8 x s8 than in fp32
            dict.fromkeys(GRAPH_NAMES, computes("fp32")),
            ".onnx",
            "cpu",
            "cpu",
            installed("onnxruntime"),
            late("onnxruntime", "open_cpu"),
        ),
        Backend(
            "openvino",
            image_graphs(computes("fp32", "bf16", "int8")) | {"reranker": computes("fp32", "bf16", int8="fp32")},
            ".onnx",
            "cpu",
            "openvino",
            installed("openvino"),
            late("openvino", "OpenVinoEngine"),
        ),
        Backend(
            "tensorrt",
            image_graphs(computes("fp32", "fp16", "int8")) | {"reranker": computes("fp32", "fp16", int8="fp16")},
            ".plan",
            "cuda",
            "tensorrt",
            installed("tensorrt"),
            late("tensorrt", "open_plan"),
            late("tensorrt", "bind"),
            late("tensorrt", "require_bound"),
        ),
        Backend(
            "tensorrt-rtx",
            image_graphs(computes("fp32", "fp16", "int8")) | {"reranker": computes("fp32", "fp16", int8="fp16")},
            ".plan",
            "cuda",
            "tensorrt-rtx",
            installed("tensorrt_rtx"),
            late("tensorrt_rtx", "open_plan"),
            late("tensorrt_rtx", "bind"),
            late("tensorrt_rtx", "require_bound"),
            late("tensorrt_rtx", "takes_device"),
            late("tensorrt_rtx", "resolve"),
        ),
        Backend(
            "onnxruntime-cuda",
            dict.fromkeys(GRAPH_NAMES, computes("fp32", "fp16")),
            ".onnx",
            "cuda",
            "gpu",
            lambda: "CUDAExecutionProvider" in machine.onnxruntime_providers(),
            late("onnxruntime", "open_cuda"),
        ),
    )
}


WHOLE = tuple(name for name, backend in BACKENDS.items() if backend.runs_every_graph)  # what `--backend` takes
PRECISIONS = tuple(dict.fromkeys(p for b in BACKENDS.values() for asked in b.precisions.values() for p in asked))


def open_engine(file: Path, backend: str, precision: str = "fp32", threads: int | None = None) -> Engine:
    """Open the engine of a graph's file on one of `BACKENDS`.

    Args:
        file: of the backend's `suffix`.
        precision: of the arithmetic; used by OpenVINO and the native engine only, because other files fix it.
        threads: CPU threads; the default and the maximum are the CPUs that this process may use.

    Raises:
        BackendError: the backend or its device is missing, or the backend rejects the file.
    """
    return known(backend).open(file, precision, usable_threads(threads))


def usable_threads(threads: int | None) -> int:
    """Return the requested threads, at most one per usable CPU; more would wait for each other."""
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


# the choice of `--backend auto`


def auto_backends(graph: str) -> list[str]:
    """Return the backends to choose from for a graph: the best one for the GPU if there is a GPU, else all for CPUs."""
    on_gpu = usable("cuda", graph) if machine.cuda_devices() else []
    return on_gpu[:1] or usable("cpu", graph)


def usable(device: str, graph: str) -> list[str]:
    """Return the backends of a device that can run a graph on this machine, the preferred one first."""
    return [
        name
        for name, backend in BACKENDS.items()
        if backend.device == device and graph in backend.precisions and backend.is_here() and backend.takes_device()
    ]


def auto_reason() -> str:
    """Return the reason for the choice of `auto_backends`."""
    devices = machine.cuda_devices()
    if not devices:
        return "no NVIDIA GPU on this machine"
    match usable("cuda", "features"):
        case ["tensorrt", *_]:
            return f"{devices[0]} and TensorRT are present"
        case ["tensorrt-rtx", *_]:
            return f"{devices[0]} and TensorRT for RTX are present"
        case ["onnxruntime-cuda"]:
            return (
                f"{devices[0]} and ONNX Runtime's CUDA provider are present; "
                f"no TensorRT: install the {tensorrt_extra()!r} extra to use it"
            )
        case _:
            extras = f"'gpu' or the {tensorrt_extra()!r}"
            return f"{devices[0]} is present, but nothing that uses it: install the {extras} extra"


def tensorrt_extra() -> str:
    """Return the extra with TensorRT for this GPU. TensorRT for RTX is preferred because PyPI alone provides it."""
    return "tensorrt-rtx" if BACKENDS["tensorrt-rtx"].takes_device() else "tensorrt"


def missing_extras() -> list[str]:
    """Return the extras that are useful on this machine and of which a library is missing."""
    if machine.cuda_devices():
        useful = [tensorrt_extra(), "gpu", "export"]
    else:
        useful = [*dict.fromkeys(b.extra for b in BACKENDS.values() if b.device == "cpu" and b.extra), "export"]
    missing = {extra for library, extra in machine.libraries().items() if not machine.installed_version(library)}
    return [extra for extra in useful if extra in missing]
