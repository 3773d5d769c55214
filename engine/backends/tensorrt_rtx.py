"""Engine on TensorRT for RTX. Any machine can build plans ahead of time for a list of GPU architectures.

The library compiles kernels for the GPU and the shapes when a plan runs, and keeps them in the user's cache folder.
Works with TensorRT for RTX 1.7.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvnet_engine.engine import machine
from cvnet_engine.engine.backends.tensorrt import ANOTHER_BACKEND, TensorRtEngine, require_device
from cvnet_engine.engine.errors import BackendError, BundleError, import_library
from cvnet_engine.engine.files import cache_folder, private_folder, write_atomically

if TYPE_CHECKING:
    import tensorrt_rtx as trt

TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")  # the GPU architectures it compiles for
DEFAULT_TARGETS = TARGETS[1:]  # Ampere and later, as the library's own default
CURRENT = "current"


class TensorRtRtxEngine(TensorRtEngine):
    """An `Engine` that runs a plan of TensorRT for RTX on the first CUDA device."""

    def __init__(self, plan: Path, cuda_graphs: bool = False) -> None:
        """
        Args:
            cuda_graphs: let the library capture runs and launch them as CUDA graphs. Off by default: the saving
                has not been measured.

        Raises:
            BackendError: see `TensorRtEngine`.
        """
        self._whole_graphs = cuda_graphs
        super().__init__(plan)

    def _import_library(self) -> Any:
        return import_tensorrt_rtx()

    def _create_context(self, engine: trt.ICudaEngine, plan: Path) -> trt.IExecutionContext | None:
        tensorrt = import_tensorrt_rtx()
        config: trt.IRuntimeConfig = engine.create_runtime_config()
        # a new shape runs on generic kernels while its own kernels are compiled in the background
        config.dynamic_shapes_kernel_specialization_strategy = tensorrt.DynamicShapesKernelSpecializationStrategy.LAZY
        if self._whole_graphs:
            config.cuda_graph_strategy = tensorrt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        kernels: trt.IRuntimeCache = config.create_runtime_cache()
        self._kernels, self._kernels_file = kernels, kernels_file(plan)
        with contextlib.suppress(OSError):  # no kernels yet, or no writable cache
            private_folder(self._kernels_file.parent)
            kernels.deserialize(self._kernels_file.read_bytes())  # those of another GPU or driver are ignored
        config.set_runtime_cache(kernels)
        return engine.create_execution_context(config)

    def close(self) -> None:
        """Save the compiled kernels if the cache is writable, and free device and host memory."""
        kernels: trt.IRuntimeCache = self._kernels
        with contextlib.suppress(OSError, BackendError):
            private_folder(self._kernels_file.parent)
            write_atomically(self._kernels_file, bytes(kernels.serialize()))
        super().close()


def kernels_file(plan: Path) -> Path:
    """Return the cache file of a plan's kernels. A bundle may be shared or read-only, so it is not kept there."""
    digest = hashlib.sha256(plan.read_bytes()).hexdigest()[:16]
    return cache_folder() / f"{plan.stem}-{digest}-{machine.compute_capability()}.kernels"


def open_plan(plan: Path, _precision: str, _threads: int) -> TensorRtRtxEngine:
    return TensorRtRtxEngine(plan)


# targets


def resolve(targets: Sequence[str]) -> tuple[str, ...]:
    """Return the architectures to compile for, without repeats; the default if none is named.

    `current` means this machine's.

    Raises:
        BackendError: an unsupported architecture, or `current` without a supported GPU.
    """
    named = [here() if target == CURRENT else target for target in targets] or DEFAULT_TARGETS
    for target in named:
        require_target(target)
    return tuple(dict.fromkeys(named))


def require_target(target: str) -> None:
    if target not in TARGETS:
        raise BackendError(
            f"TensorRT for RTX does not support target {target!r}; expected {', '.join(TARGETS)} or {CURRENT}"
        )


def here() -> str:
    """Return the architecture of this machine's GPU.

    Raises:
        BackendError: there is no GPU, or TensorRT for RTX does not support it.
    """
    device = require_device()
    target = architecture()
    if target not in TARGETS:
        raise BackendError(
            f"{device} has compute capability {machine.compute_capability()}, which TensorRT for RTX does not support; "
            "build the bundle with --backend tensorrt"
        )
    return target


def architecture() -> str:
    """Return the first CUDA device's architecture, such as `sm89`; empty without a device."""
    capability = machine.compute_capability()
    return f"sm{capability.replace('.', '')}" if capability else ""


def takes_device() -> bool:
    return architecture() in TARGETS


def set_targets(tensorrt: Any, config: trt.IBuilderConfig, targets: Sequence[str]) -> None:
    """Set the architectures that the builder compiles for.

    Raises:
        BackendError: one is not in `TARGETS`.
    """
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        require_target(target)
        config.set_compute_capability(getattr(tensorrt.ComputeCapability, target.upper()), index)


# the manifest


def bind(targets: Sequence[str]) -> dict[str, str]:
    """Return the targets and library version that plans require, for a manifest."""
    return {"targets": ",".join(targets), "tensorrt_rtx": import_tensorrt_rtx().__version__}


def require_bound(gpu: Mapping[str, str]) -> None:
    """Raise BackendError without a supported GPU, BundleError if GPU or library differ from those in `gpu`."""
    target = here()
    differing = []
    if target not in gpu["targets"].split(","):
        differing.append(f"a GPU of {target} (built for {gpu['targets']})")
    if (version := import_tensorrt_rtx().__version__) != gpu["tensorrt_rtx"]:
        differing.append(f"TensorRT for RTX {version} (built with {gpu['tensorrt_rtx']})")
    if differing:
        raise BundleError(
            f"this machine has {', '.join(differing)}; "
            f"build the bundle again with --backend tensorrt-rtx --targets {target}"
        )


def import_tensorrt_rtx() -> Any:
    return import_library("tensorrt_rtx", "TensorRT for RTX", "tensorrt-rtx", ANOTHER_BACKEND)
