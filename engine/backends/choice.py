"""Which backends this machine can run, and which of them are worth having here."""

from __future__ import annotations

from engine import machine
from engine.backends import BACKENDS, Backend


def candidates(graph: str) -> list[str]:
    """Backends to choose from for a graph: the GPU's best where there is one, else all of the processor's."""
    on_gpu = usable("cuda", graph) if machine.cuda_devices() else []
    return on_gpu[:1] or usable("cpu", graph)


def usable(device: str, graph: str) -> list[str]:
    return [name for name, b in BACKENDS.items() if b.device == device and graph in b.precisions and b.is_here()]


def reason() -> str:
    """Why `candidates` are those."""
    devices = machine.cuda_devices()
    if not devices:
        return "no NVIDIA GPU on this machine"
    match usable("cuda", "features"):
        case ["tensorrt", *_]:
            return f"{devices[0]} and TensorRT are present"
        case ["onnxruntime-cuda"]:
            return (
                f"{devices[0]} and ONNX Runtime's CUDA provider are present; no TensorRT: install that extra to use it"
            )
        case _:
            return f"{devices[0]} is present, but nothing that uses it: install the 'gpu' or the 'tensorrt' extra"


def useful_extras() -> list[str]:
    """Extras of the package that this machine has a use for."""
    return [*dict.fromkeys(b.extra for b in on_this_device() if b.extra), "export"]


def on_this_device() -> list[Backend]:
    device = "cuda" if machine.cuda_devices() else "cpu"
    return [backend for backend in BACKENDS.values() if backend.device == device]


def missing_extras() -> list[str]:
    """Those of `useful_extras` that are not installed, wholly or in part."""
    missing = {extra for library, extra in machine.libraries().items() if not machine.installed_version(library)}
    return [extra for extra in useful_extras() if extra in missing]
