"""Description of this machine: processor, memory, CUDA devices and installed libraries."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

# CPU features that inference libraries use.
CPU_FEATURES = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
COMPUTE_CAPABILITY = (75, 76)  # CUDA driver attributes: major and minor version
CGROUP = Path("/sys/fs/cgroup")
DISTRIBUTION = "cvnet-engine"


class Machine(TypedDict):
    """JSON-serialisable description of a machine. A library that is not installed has the version None."""

    system: str
    python: str
    cpu: str
    cpu_features: list[str]
    cpus: int
    memory_bytes: int
    cuda_devices: list[str]
    libraries: dict[str, str | None]
    onnxruntime_providers: list[str]


def describe() -> Machine:
    """Return the description of this machine."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cpu_features": cpu_features(),
        "cpus": usable_cpus(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cuda_devices": cuda_devices(),
        "libraries": {name: installed_version(name) for name in libraries()},
        "onnxruntime_providers": onnxruntime_providers(),
    }


def amx_refused() -> bool:
    """Return True if the processor has AMX tiles and the system does not let this process use them."""
    request, tile_data = 0x1023, 18  # ARCH_REQ_XCOMP_PERM and XFEATURE_XTILEDATA of Linux
    has_tiles = platform.machine() == "x86_64" and "amx_bf16" in cpu_features()
    return has_tiles and ctypes.CDLL(None).syscall(158, request, tile_data) != 0  # arch_prctl


def libraries() -> dict[str, str]:
    """Return each required distribution with the first extra that installs it, empty if it is always installed."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # not installed: run from source
        return {}
    found: dict[str, str] = {}
    for requirement in requirements:  # `onnxruntime>=1.20; extra == 'cpu'`
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)", requirement)
        if name:
            found.setdefault(name[0], extra[1] if extra else "")
    return found


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use, within its container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, cpu_quota(CGROUP))))


def cpu_quota(cgroup: Path) -> float:
    """Return the quota of a cgroup (version 2) in CPUs, infinite without a limit. More threads are throttled."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no such file, or the value "max"
        return math.inf


def cuda_devices() -> list[str]:
    """Return the names of the CUDA devices; empty without a driver."""
    driver = cuda_driver()
    count = ctypes.c_int()
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    names = []
    for device in range(count.value):
        name = ctypes.create_string_buffer(256)
        driver.cuDeviceGetName(name, len(name), device)
        names.append(name.value.decode())
    return names


def compute_capability() -> str | None:
    """Return the compute capability of the first CUDA device, such as `8.9`; None without a device."""
    driver, numbers = cuda_driver(), []
    if driver is None:
        return None
    for attribute in COMPUTE_CAPABILITY:
        number = ctypes.c_int()
        if driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, 0):
            return None
        numbers.append(number.value)
    return "{}.{}".format(*numbers)


def cuda_driver() -> Any:
    """Load and initialise NVIDIA's driver library; None if it is missing or fails."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return None if driver.cuInit(0) else driver


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


def adds_bytes_exactly() -> bool:
    """Return True if int8 products are summed exactly, in 32 bits. x86 without VNNI uses 16 bits, which saturate."""
    features = cpu_features()
    return "avx2" not in features or "avx_vnni" in features or "avx512_vnni" in features


def cpuinfo(field: str) -> str:
    """Return a field of the first processor in /proc/cpuinfo; empty without the file or the field."""
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
