"""What this machine can run: processor, memory, CUDA devices, and the libraries that are installed."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from engine.session import usable_cpus

CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")  # that inference libraries use
LIBRARIES = {
    "onnxruntime": "cpu",
    "onnxruntime-gpu": "gpu",
    "openvino": "openvino",
    "tensorrt-cu13": "tensorrt",
    "cuda-bindings": "tensorrt",
    "torch": "export",
    "torchvision": "export",
    "onnx": "export",
    "onnxscript": "export",
    "onnx-ir": "export",
    "faiss-cpu": "",
    "numpy": "",
    "opencv-python-headless": "",
    "pillow": "",
}  # distribution -> the extra that brings it, none where it always comes


def describe() -> dict[str, Any]:
    """The machine in plain values, fit for JSON; a library that is not installed has the version None."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cpu_features": cpu_features(),
        "cpus": usable_cpus(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cuda_devices": cuda_devices(),
        "libraries": {name: installed_version(name) for name in LIBRARIES},
        "onnxruntime_providers": onnxruntime_providers(),
    }


def backends(graph: str) -> list[str]:
    """Backends that can run a graph on this machine: those of the GPU where there is one, else every CPU backend."""
    if cuda_devices():
        on_gpu = ["tensorrt"] if importlib.util.find_spec("tensorrt") else []
        on_gpu += ["onnxruntime-cuda"] if "CUDAExecutionProvider" in onnxruntime_providers() else []
        if on_gpu:
            return on_gpu[:1]
    installed = [name for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name)]
    native = ["native"] if graph == "reranker" and shutil.which(os.environ.get("CC", "cc").split()[0]) else []
    return native + installed


def auto_reason() -> str:
    """Why `backends` are those."""
    devices = cuda_devices()
    if not devices:
        return "no NVIDIA GPU on this machine"
    match backends("features")[:1]:
        case ["tensorrt"]:
            return f"{devices[0]} and TensorRT are present"
        case ["onnxruntime-cuda"]:
            return (
                f"{devices[0]} and ONNX Runtime's CUDA provider are present; no TensorRT: install that extra to use it"
            )
        case _:
            return f"{devices[0]} is present, but nothing that uses it: install the 'gpu' or the 'tensorrt' extra"


def useful_extras() -> tuple[str, ...]:
    """Extras of the package that this machine has a use for."""
    return ("gpu", "tensorrt", "export") if cuda_devices() else ("cpu", "openvino", "export")


def missing_extras() -> list[str]:
    """Those of `useful_extras` that are not installed, wholly or in part."""
    missing = {extra for library, extra in LIBRARIES.items() if not installed_version(library)}
    return [extra for extra in useful_extras() if extra in missing]


def cuda_devices() -> list[str]:
    """Names of the CUDA devices, asked of the driver itself; none where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    names = []
    for device in range(count.value):
        name = ctypes.create_string_buffer(256)
        driver.cuDeviceGetName(name, len(name), device)
        names.append(name.value.decode())
    return names


def onnxruntime_providers() -> list[str]:
    try:
        import onnxruntime
    except ImportError:
        return []
    return list(onnxruntime.get_available_providers())


def cpu_name() -> str:
    return cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    flags = cpuinfo("flags").split()
    return [feature for feature in CPU_FEATURES if feature in flags]


def cpuinfo(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo; empty on systems without it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def installed_version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
