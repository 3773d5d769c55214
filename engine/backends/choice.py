"""Backends that this machine can run, and the extras worth installing here."""

from __future__ import annotations

from cvnet_engine.engine import machine
from cvnet_engine.engine.backends import BACKENDS


def candidates(graph: str) -> list[str]:
    """Backends to choose from for a graph: the best one for the GPU if there is a GPU, else all CPU backends."""
    on_gpu = usable("cuda", graph) if machine.cuda_devices() else []
    return on_gpu[:1] or usable("cpu", graph)


def usable(device: str, graph: str) -> list[str]:
    return [
        name
        for name, backend in BACKENDS.items()
        if backend.device == device and graph in backend.precisions and backend.is_here() and backend.takes_device()
    ]


def reason() -> str:
    """Explain the choice of `candidates`."""
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
    """The TensorRT to install for this GPU. TensorRT for RTX comes first because PyPI alone provides it."""
    return "tensorrt-rtx" if BACKENDS["tensorrt-rtx"].takes_device() else "tensorrt"


def useful_extras() -> list[str]:
    """Extras of the package that are useful on this machine."""
    if machine.cuda_devices():
        return [tensorrt_extra(), "gpu", "export"]
    return [*dict.fromkeys(b.extra for b in BACKENDS.values() if b.device == "cpu" and b.extra), "export"]


def missing_extras() -> list[str]:
    """Useful extras of which a library is missing."""
    missing = {extra for library, extra in machine.libraries().items() if not machine.installed_version(library)}
    return [extra for extra in useful_extras() if extra in missing]
