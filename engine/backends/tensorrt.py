"""Engine on TensorRT. A plan takes any shape within its optimisation profiles, on the GPU model it was built for.

Device and pinned host memory (`engine.backends.cuda`) stay between calls and grow when a call needs more. Works with
TensorRT 10.12 to 10.16 and 11. The engine on TensorRT for RTX (`tensorrt_rtx`) differs in importing the library and
creating the context.

All TensorRT objects are annotated, because tests/engine/backends/tensorrt_contract.py reads the annotations and checks
every name that is used here against the real bindings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cvnet_engine.engine.backends.cuda import Buffer, Graph, Input, Shape, Stream, checked, import_cudart
from cvnet_engine.engine.contract import Array, Closing, TensorSpec, check_feeds
from cvnet_engine.engine.errors import BackendError, BundleError, import_library
from cvnet_engine.engine.machine import cuda_devices

if TYPE_CHECKING:
    import tensorrt as trt

Profile = Mapping[str, tuple[Shape, Shape]]  # input -> smallest and largest shape
MOST_CAPTURES = 8  # four image sizes, each with either of two input buffers
ANOTHER_BACKEND = ", or build the bundle with another --backend"


class TensorRtEngine(Closing):
    """An `Engine` that runs a plan on the first CUDA device.

    Arrays given to `upload` are copied while a run goes on. Float16 inputs accept any floating type and are rounded on
    the host, which halves the bytes to copy from float32.
    """

    def __init__(self, plan: Path, cuda_graphs: bool = False) -> None:
        """
        Args:
            cuda_graphs: launch repeated runs as CUDA graphs. Off by default: each new shape costs a context and a
                capture, and the saving has not been measured.

        Raises:
            BackendError: no GPU, TensorRT or cuda-bindings here, or this TensorRT rejects the plan.
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
        self._runtime, self._engine = runtime, engine
        self._captures = Captures(tensorrt, engine, self._cudart) if cuda_graphs else None
        self._context = None if cuda_graphs else self._require_room(self._create_context(engine, plan))
        self.inputs = specs(tensorrt, engine, tensorrt.TensorIOMode.INPUT)
        self.outputs = specs(tensorrt, engine, tensorrt.TensorIOMode.OUTPUT)
        self._profiles = profiles(engine, list(self.inputs))
        self._runs, self._copies = Stream(self._cudart), Stream(self._cudart)
        self._received = {
            name: Input(self._cudart, np.dtype(tensorrt.nptype(engine.get_tensor_dtype(name))), self._copies)
            for name in self.inputs
        }
        self._results = {name: Buffer(self._cudart) for name in self.outputs}
        self._memory: list[Input | Buffer] = [*self._received.values(), *self._results.values()]

    def upload(self, feeds: Mapping[str, Array]) -> None:
        """Begin to copy feeds of later runs, see `engine.contract.Uploading`."""
        for name, array in feeds.items():
            self._received[name].send(array)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        check_feeds(feeds, self.inputs)
        self._log.errors.clear()
        shapes = {name: feeds[name].shape for name in self.inputs}
        profile = choose_profile(self._profiles, shapes)
        taken = {name: received.take(feeds[name]) for name, received in self._received.items()}
        for buffer in taken.values():
            self._runs.wait(buffer.copied)
        addresses = {name: buffer.device for name, buffer in taken.items()}
        try:
            views = self._start(Setting(profile, tuple(shapes.items()), tuple(addresses.items())))
            for name, view in views.items():
                self._results[name].download(view.nbytes, self._runs)
        finally:
            self._runs.synchronise()  # after a failure too: queued work reads and writes this memory
        return {name: view.copy() for name, view in views.items()}

    def close(self) -> None:
        """Free device and host memory."""
        for stream in (self._copies, self._runs):
            stream.synchronise()
        if self._captures is not None:
            self._captures.free()
        for memory in self._memory:
            memory.free()
        for stream in (self._copies, self._runs):
            stream.destroy()
        del self._captures, self._context, self._engine, self._runtime  # TensorRT requires this order

    def _import_library(self) -> Any:
        return import_tensorrt()

    def _create_context(self, engine: trt.ICudaEngine, _plan: Path) -> trt.IExecutionContext | None:
        return engine.create_execution_context()

    def _start(self, setting: Setting) -> dict[str, Array]:
        """Enqueue a run. The returned host arrays are valid once they are downloaded."""
        if self._captures is None:
            assert self._context is not None
            return self._enqueue(self._context, setting)
        self._captures.drop_moved(self._moves)
        captured = self._captures.find(setting)
        if captured is not None:
            captured.graph.launch(self._runs)
            return captured.views
        context = self._require_room(self._captures.create_context())
        views = self._enqueue(context, setting)  # TensorRT requires a run before the capture
        graph = Graph(self._cudart, self._runs, lambda: self._execute(context))
        self._captures.drop_moved(self._moves)
        self._captures.keep(setting, Captured(context, graph, views))
        return views

    @property
    def _moves(self) -> int:
        """Number of times that the memory of any tensor has moved."""
        return sum(memory.moves for memory in self._memory)

    def _enqueue(self, context: trt.IExecutionContext, setting: Setting) -> dict[str, Array]:
        self._set_shapes(context, setting)
        views = {
            name: self._results[name].reserve(tuple(context.get_tensor_shape(name)), np.dtype(spec.dtype))
            for name, spec in self.outputs.items()
        }
        for name, address in setting.addresses:
            self._expect(context.set_tensor_address(name, address))
        for name, buffer in self._results.items():
            self._expect(context.set_tensor_address(name, buffer.device))
        self._execute(context)
        return views

    def _execute(self, context: trt.IExecutionContext) -> None:
        self._expect(context.execute_async_v3(int(self._runs.handle)))

    def _set_shapes(self, context: trt.IExecutionContext, setting: Setting) -> None:
        if setting.profile != context.active_optimization_profile:
            self._expect(context.set_optimization_profile_async(setting.profile, int(self._runs.handle)))
        for name, shape in setting.shapes:
            self._expect(context.set_input_shape(name, shape))
        try:
            unknown = context.infer_shapes()
        except RuntimeError as error:
            sizes = ", ".join(f"{name} {x_joined(shape)}" for name, shape in setting.shapes)
            raise BackendError(
                f"inputs {sizes} do not go together ({first_error(self._log)}); feed maps of one batch and image size"
            ) from error
        assert not unknown, unknown

    def _require_room(self, context: trt.IExecutionContext | None) -> trt.IExecutionContext:
        if context is None:
            raise BackendError(
                f"no room on the GPU for a plan ({first_error(self._log)}); "
                "free GPU memory, or build the bundle for smaller --sizes"
            )
        return context

    def _expect(self, done: bool) -> None:
        if not done:
            raise BackendError(
                f"TensorRT stopped ({first_error(self._log)}); "
                "if GPU memory ran out, feed a smaller batch or image, else build the bundle again"
            )


def open_plan(plan: Path, _precision: str, _threads: int) -> TensorRtEngine:
    return TensorRtEngine(plan)


# CUDA graphs


@dataclass(frozen=True)
class Setting:
    """The inputs of a captured run: optimisation profile, and each input's shape and device address."""

    profile: int
    shapes: tuple[tuple[str, Shape], ...]
    addresses: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Captured:
    """A captured run: its context, which the graph needs, and the results on the host by name."""

    context: trt.IExecutionContext
    graph: Graph
    views: dict[str, Array]


class Captures:
    """The captured runs of the `MOST_CAPTURES` latest settings.

    A graph is valid for the settings of its context, so each graph keeps its own context unchanged. All contexts share
    one block of device memory, because one run goes on at a time.
    """

    def __init__(self, tensorrt: Any, engine: trt.ICudaEngine, cudart: Any) -> None:
        self._engine, self._cudart = engine, cudart
        self._strategy = tensorrt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._size_bytes = engine.device_memory_size_v2
        self._memory = int(checked(cudart.cudaMalloc(self._size_bytes)))
        self._kept: dict[Setting, Captured] = {}  # least recently used first
        self._moves = 0

    def create_context(self) -> trt.IExecutionContext | None:
        engine: trt.ICudaEngine = self._engine
        context: trt.IExecutionContext | None = engine.create_execution_context(self._strategy)
        if context is not None:
            context.set_device_memory(self._memory, self._size_bytes)
        return context

    def drop_moved(self, moves: int) -> None:
        """Drop all graphs if memory has moved since the last call: they would use the old addresses."""
        if moves != self._moves:
            self._clear()
        self._moves = moves

    def find(self, setting: Setting) -> Captured | None:
        captured = self._kept.pop(setting, None)
        if captured is not None:
            self._kept[setting] = captured
        return captured

    def keep(self, setting: Setting, captured: Captured) -> None:
        self._kept[setting] = captured
        if len(self._kept) > MOST_CAPTURES:
            self._kept.pop(next(iter(self._kept))).graph.destroy()

    def free(self) -> None:
        self._clear()
        checked(self._cudart.cudaFree(self._memory))

    def _clear(self) -> None:
        for captured in self._kept.values():
            captured.graph.destroy()
        self._kept.clear()


# profiles


def profiles(engine: trt.ICudaEngine, inputs: Sequence[str]) -> list[Profile]:
    """Return the range of shapes of each optimisation profile of an engine."""
    found: list[Profile] = []
    for index in range(engine.num_optimization_profiles):
        ranges = {name: engine.get_tensor_profile_shape(name, index) for name in inputs}  # smallest, best, largest
        found.append({name: (tuple(low), tuple(high)) for name, (low, _, high) in ranges.items()})
    return found


def choose_profile(profiles: Sequence[Profile], shapes: Mapping[str, Shape]) -> int:
    """Choose the tightest profile that takes these shapes: the one whose largest inputs are the smallest.

    Raises:
        BackendError: no profile takes them; the message names the tensor, its shape and the ranges.
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
    """Return an engine's inputs or outputs. A plan drops the names of free axes, so each gets a generated one.

    A float16 input is declared as any floating type.
    """
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {}
    for name in names:
        if engine.get_tensor_mode(name) == mode:
            sizes = enumerate(engine.get_tensor_shape(name))
            shape = tuple(f"{name}_{axis}" if size < 0 else size for axis, size in sizes)
            dtype = np.dtype(tensorrt.nptype(engine.get_tensor_dtype(name)))
            rounds = dtype == np.float16 and mode == tensorrt.TensorIOMode.INPUT
            found[name] = TensorSpec("floating" if rounds else dtype.name, shape)
    return found


# the machine


def bind(_targets: Sequence[str] = ()) -> dict[str, str]:
    """Return the GPU and library versions that a plan built here requires, for the manifest.

    Raises:
        BackendError: no GPU, TensorRT or cuda-bindings here.
    """
    gpu, cudart = require_device(), import_cudart()
    properties = checked(cudart.cudaGetDeviceProperties(0))
    cuda = checked(cudart.cudaDriverGetVersion())  # the newest that the driver supports
    return {
        "gpu": gpu,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "tensorrt": import_tensorrt().__version__,
        "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
    }


def require_bound(built: Mapping[str, str]) -> None:
    """Raise BundleError if plans with the requirements `built` cannot run here.

    GPU, compute capability and TensorRT must be equal. The driver must support the CUDA version of the build.
    """
    here = bind()
    differing = [
        f"{name.replace('_', ' ')} {here[name]} (built for {built[name]})"
        for name in ("gpu", "compute_capability", "tensorrt")
        if built[name] != here[name]
    ]
    if version_tuple(here["cuda"]) < version_tuple(built["cuda"]):
        differing.append(f"cuda {here['cuda']} (built with {built['cuda']})")
    if differing:
        raise BundleError(
            f"this machine has {', '.join(differing)}; a TensorRT plan runs where it was built: "
            "build the bundle again here with 'cvnet-engine build --backend tensorrt'"
        )


def version_tuple(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def require_device() -> str:
    """Return the first CUDA device's name. Call it before TensorRT, which may crash without a device.

    Raises:
        BackendError: there is no CUDA device.
    """
    devices = cuda_devices()
    if not devices:
        raise BackendError(
            "no NVIDIA GPU on this machine, or no driver for it; expected one: "
            "check with 'nvidia-smi', or build the bundle with --backend onnxruntime"
        )
    return devices[0]


def import_tensorrt() -> Any:
    return import_library("tensorrt", "TensorRT", "tensorrt", ANOTHER_BACKEND)


@cache
def error_log(tensorrt: Any) -> Any:
    """Return the logger of a TensorRT module. It collects messages in `errors`, from which exceptions are made.

    There is one per process, because TensorRT keeps using its first logger. Clear `errors` before a call that may fail.
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
    """Return the first logged error in one line; it caused the later ones."""
    return " ".join(log.errors[0].split())[:300] if log.errors else "it gave no reason"
