"""TensorRT as an engine: a plan run at any shape within its optimisation profiles, and only on the GPU it is made for.

Device and pinned host memory come from NVIDIA's cuda-bindings; PyTorch is not needed. Buffers stay between calls and
grow when a call needs more. Works with TensorRT 10.12 to 10.16 and 11; TensorRT for RTX (`tensorrt_rtx`) is the same
engine but for how its library is imported and its context made.

Objects of TensorRT are annotated throughout: tests/engine/backends/tensorrt_contract.py reads the annotations and
asks the real bindings for every name that is used here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.contract import Array, Closing, TensorSpec, check_feeds
from engine.errors import BackendError, BundleError
from engine.machine import cuda_devices

if TYPE_CHECKING:
    import tensorrt as trt

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape]]  # input -> smallest and largest shape


class TensorRtEngine(Closing):
    """An `Engine` that runs a plan on the first CUDA device."""

    def __init__(self, plan: Path) -> None:
        """
        Raises:
            BackendError: no GPU, TensorRT or cuda-bindings here, or a plan that this TensorRT does not take.
        """
        require_device()
        tensorrt, self._cudart = self._import_library(), import_cudart()
        self._log = error_log(tensorrt)
        self._log.errors.clear()
        runtime: trt.Runtime = tensorrt.Runtime(self._log)
        engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise BackendError(
                f"{plan}: TensorRT {tensorrt.__version__} does not open it ({first_error(self._log)}); "
                "a plan fits the GPU model and TensorRT that built it: build the bundle again on this machine"
            )
        context: trt.IExecutionContext | None = self._create_context(engine, plan)
        if context is None:
            raise BackendError(
                f"{plan}: no room on the GPU ({first_error(self._log)}); free GPU memory, or build for smaller --sizes"
            )
        self._runtime, self._engine, self._context = runtime, engine, context
        self.inputs = specs(tensorrt, engine, tensorrt.TensorIOMode.INPUT)
        self.outputs = specs(tensorrt, engine, tensorrt.TensorIOMode.OUTPUT)
        self._profiles = profiles(engine, list(self.inputs))
        self._profile = 0  # the one that a new context starts with
        self._stream = checked(self._cudart.cudaStreamCreate())  # everything is done in order on this one
        self._buffers = {name: Buffer(self._cudart, self._stream) for name in (*self.inputs, *self.outputs)}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        check_feeds(feeds, self.inputs)
        self._log.errors.clear()
        self._set_shapes({name: array.shape for name, array in feeds.items()})
        context: trt.IExecutionContext = self._context
        for name in self.inputs:
            self._buffers[name].upload(feeds[name])
        results = {
            name: self._buffers[name].reserve(tuple(context.get_tensor_shape(name)), np.dtype(spec.dtype))
            for name, spec in self.outputs.items()
        }
        for name, buffer in self._buffers.items():
            self._expect(context.set_tensor_address(name, buffer.device))
        self._expect(context.execute_async_v3(int(self._stream)))
        for name, view in results.items():
            self._buffers[name].download(view.nbytes)
        checked(self._cudart.cudaStreamSynchronize(self._stream))
        return {name: view.copy() for name, view in results.items()}

    def close(self) -> None:
        """Give back device and host memory."""
        for buffer in self._buffers.values():
            buffer.free()
        checked(self._cudart.cudaStreamDestroy(self._stream))
        del self._context, self._engine, self._runtime  # in this order, as TensorRT asks for

    def _import_library(self) -> Any:
        return import_tensorrt()

    def _create_context(self, engine: trt.ICudaEngine, _plan: Path) -> trt.IExecutionContext | None:
        return engine.create_execution_context()

    def _set_shapes(self, shapes: Mapping[str, Shape]) -> None:
        context: trt.IExecutionContext = self._context
        profile = choose_profile(self._profiles, shapes)
        if profile != self._profile:
            self._expect(context.set_optimization_profile_async(profile, int(self._stream)))
            self._profile = profile
        for name, shape in shapes.items():
            self._expect(context.set_input_shape(name, shape))
        try:
            unknown = context.infer_shapes()
        except RuntimeError as error:
            sizes = ", ".join(f"{name} {x_joined(shape)}" for name, shape in shapes.items())
            raise BackendError(
                f"inputs {sizes} do not go together ({first_error(self._log)}); feed maps of one batch and image size"
            ) from error
        assert not unknown, unknown

    def _expect(self, done: bool) -> None:
        if not done:
            raise BackendError(
                f"TensorRT stopped ({first_error(self._log)}); "
                "if GPU memory ran out, feed a smaller batch or image, else build the bundle again"
            )


# profiles


def profiles(engine: trt.ICudaEngine, inputs: Sequence[str]) -> list[Profile]:
    """What shapes each optimisation profile of an engine takes."""
    found: list[Profile] = []
    for index in range(engine.num_optimization_profiles):
        ranges = {name: engine.get_tensor_profile_shape(name, index) for name in inputs}  # smallest, best, largest
        found.append({name: (tuple(low), tuple(high)) for name, (low, _, high) in ranges.items()})
    return found


def choose_profile(profiles: Sequence[Profile], shapes: Mapping[str, Shape]) -> int:
    """The index of the tightest profile that takes these shapes: the one of the smallest largest inputs.

    Raises:
        BackendError: none takes them; names the tensor, its shape and the ranges.
    """
    misfits = [[name for name, shape in shapes.items() if not within(shape, *profile[name])] for profile in profiles]
    fitting = [index for index, names in enumerate(misfits) if not names]
    if fitting:
        return min(fitting, key=lambda index: sum(float(np.prod(high)) for _, high in profiles[index].values()))
    name = min(misfits, key=len)[0]
    ranges = dict.fromkeys(f"{x_joined(low)} to {x_joined(high)}" for low, high in (p[name] for p in profiles))
    raise BackendError(
        f"input {name!r} is {x_joined(shapes[name])}; this engine takes {', or '.join(ranges)}: "
        "resize the image, or build the bundle again with --sizes that include it"
    )


def within(shape: Shape, low: Shape, high: Shape) -> bool:
    return all(lowest <= size <= highest for size, lowest, highest in zip(shape, low, high, strict=True))


def x_joined(shape: Shape) -> str:
    return "x".join(map(str, shape))


def specs(tensorrt: Any, engine: trt.ICudaEngine, mode: trt.TensorIOMode) -> dict[str, TensorSpec]:
    """An engine's inputs or outputs. A plan does not keep the names of free axes, so each gets one of its own."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {}
    for name in names:
        if engine.get_tensor_mode(name) == mode:
            sizes = enumerate(engine.get_tensor_shape(name))
            shape = tuple(f"{name}_{axis}" if size < 0 else size for axis, size in sizes)
            found[name] = TensorSpec(np.dtype(tensorrt.nptype(engine.get_tensor_dtype(name))).name, shape)
    return found


# the machine


@dataclass(frozen=True)
class Fingerprint:
    """What a plan is bound to, as kept in the bundle's manifest."""

    gpu: str
    compute_capability: str
    tensorrt: str
    cuda: str  # the newest that the driver serves


def fingerprint() -> Fingerprint:
    """The fingerprint of this machine's first CUDA device.

    Raises:
        BackendError: no GPU, TensorRT or cuda-bindings here.
    """
    gpu = require_device()
    cudart = import_cudart()
    properties = checked(cudart.cudaGetDeviceProperties(0))
    cuda = checked(cudart.cudaDriverGetVersion())
    return Fingerprint(
        gpu=gpu,
        compute_capability=f"{properties.major}.{properties.minor}",
        tensorrt=import_tensorrt().__version__,
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}",
    )


def check_fingerprint(built: Fingerprint, here: Fingerprint) -> None:
    """Raise BundleError where a plan built on one machine cannot serve on another.

    GPU, compute capability and TensorRT are equal, and the driver serves at least the CUDA it was built with.
    """
    differing = [
        f"{field.name.replace('_', ' ')} {getattr(here, field.name)} (built for {getattr(built, field.name)})"
        for field in fields(Fingerprint)
        if field.name != "cuda" and getattr(built, field.name) != getattr(here, field.name)
    ]
    if version_tuple(here.cuda) < version_tuple(built.cuda):
        differing.append(f"cuda {here.cuda} (built with {built.cuda})")
    if differing:
        raise BundleError(
            f"this machine has {', '.join(differing)}; a TensorRT plan runs where it was built: "
            "build the bundle again here with 'cvnet-engine build --backend tensorrt'"
        )


def bind() -> dict[str, str]:
    """This machine's fingerprint, as a manifest keeps it."""
    return asdict(fingerprint())


def require_bound(gpu: Mapping[str, str]) -> None:
    """Raise BundleError where plans of the fingerprint `gpu` cannot serve here."""
    check_fingerprint(Fingerprint(**gpu), fingerprint())


def version_tuple(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def require_device() -> str:
    """The first CUDA device's name. TensorRT may crash without one, so it is asked for before anything else.

    Raises:
        BackendError: there is none.
    """
    devices = cuda_devices()
    if not devices:
        raise BackendError(
            "no NVIDIA GPU on this machine, or no driver for it; expected one: "
            "check with 'nvidia-smi', or build the bundle with --backend onnxruntime"
        )
    return devices[0]


def import_tensorrt() -> Any:
    """The module, or a BackendError that says how to get it."""
    try:
        import tensorrt
    except ImportError as error:
        raise BackendError(
            f"TensorRT cannot be imported ({error}); install the 'tensorrt' extra of cvnet-engine, "
            "or build the bundle with another --backend"
        ) from error
    return tensorrt


@cache
def error_log(tensorrt: Any) -> Any:
    """The logger of a TensorRT module, which keeps the errors in `errors`, so that they can become exceptions.

    One a process: TensorRT goes on telling the first that it was given. Clear `errors` before what may fail.
    """

    class ErrorLog(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (tensorrt.ILogger.Severity.INTERNAL_ERROR, tensorrt.ILogger.Severity.ERROR):
                self.errors.append(msg)

    return ErrorLog()


def first_error(log: Any) -> str:
    """The first error logged, which is the cause of those behind it, in one line."""
    return " ".join(log.errors[0].split())[:300] if log.errors else "it gave no reason"


# memory


class Buffer:
    """Device memory of one tensor and its pinned mirror on the host, which grow together."""

    def __init__(self, cudart: Any, stream: Any) -> None:
        self._cudart, self._stream = cudart, stream
        self._size_bytes = 0
        self.device = self._host = 0  # addresses

    def reserve(self, shape: Shape, dtype: np.dtype[Any]) -> Array:
        """The host's memory as an array of this shape; the device has room for as much."""
        size_bytes = max(int(np.prod(shape)) * dtype.itemsize, 1)  # an empty tensor needs an address too
        if size_bytes > self._size_bytes:
            self.free()
            self.device = int(checked(self._cudart.cudaMalloc(size_bytes)))
            self._host = int(checked(self._cudart.cudaMallocHost(size_bytes)))
            self._size_bytes = size_bytes
        memory = memoryview((ctypes.c_ubyte * size_bytes).from_address(self._host))
        return np.ndarray(shape, dtype, memory)

    def upload(self, array: Array) -> None:
        self.reserve(array.shape, array.dtype)[...] = array
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        checked(self._cudart.cudaMemcpyAsync(self.device, self._host, array.nbytes, kind, self._stream))

    def download(self, size_bytes: int) -> None:
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        checked(self._cudart.cudaMemcpyAsync(self._host, self.device, size_bytes, kind, self._stream))

    def free(self) -> None:
        self._size_bytes = 0
        checked(self._cudart.cudaFree(self.device))  # both take address 0 for nothing to do
        checked(self._cudart.cudaFreeHost(self._host))
        self.device = self._host = 0


def import_cudart() -> Any:
    """The CUDA runtime's Python module, or a BackendError that says how to get it."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise BackendError(
            f"cuda-bindings cannot be imported ({error}); install the 'tensorrt' extra of cvnet-engine"
        ) from error
    return runtime


def checked(result: tuple[Any, ...]) -> Any:
    """The value of a CUDA runtime call, whose results begin with its status; BackendError if it failed."""
    status, *values = result
    if status.value:
        raise BackendError(f"CUDA stopped ({status.name}); free GPU memory, or check the driver with 'nvidia-smi'")
    return values[0] if values else None
