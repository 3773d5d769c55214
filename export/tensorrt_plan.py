"""TensorRT plan builder: optimisation profiles from image sizes, and compilation of an ONNX graph.

The network is strongly typed: precision is decided in the graph (`export.precision`), and the builder only chooses
kernels. Supports TensorRT 10.12 to 10.16 and 11, and TensorRT for RTX 1.7, which compiles without a GPU. All TensorRT
objects have type annotations because tests/engine/backends/tensorrt_contract.py checks them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from onnxscript import optimizer

from cvnet_engine.engine.backends.cuda import Shape
from cvnet_engine.engine.backends.tensorrt import error_log, first_error, import_tensorrt, require_device, x_joined
from cvnet_engine.engine.backends.tensorrt_rtx import import_tensorrt_rtx, set_targets
from cvnet_engine.engine.errors import ExportError
from cvnet_engine.engine.geometry import IMAGE_SCALES, MAP_DIM, Size, map_size, unit_map_sizes
from cvnet_engine.engine.retrieval.descriptors import DESCRIPTORS
from cvnet_engine.export.graphs import GRAPHS

if TYPE_CHECKING:
    import tensorrt as trt

Profile = Mapping[str, tuple[Shape, Shape, Shape]]  # input -> smallest, best and largest shape
LARGEST_ELEMENTS = 2**31 - 1  # per tensor, because TensorRT counts elements in 32 bits


@dataclass(frozen=True)
class PlanOptions:
    """Options of the builder.

    Attributes:
        targets: GPU architectures of `engine.backends.tensorrt_rtx.TARGETS` for TensorRT for RTX to compile for;
            empty to compile for this machine's GPU with TensorRT.
    """

    workspace_bytes: int = 4 << 30
    optimization_level: int = 3  # 0 (fastest build) to 5 (most kernels tried)
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class SizeRange:
    """Image sizes (height, width) px that one optimisation profile covers; TensorRT tunes kernels for `best`."""

    smallest: Size
    best: Size
    largest: Size


# profiles


def size_ranges(sizes: Iterable[Size]) -> list[SizeRange]:
    """Return one range for portrait and one for landscape images; square images count as landscape.

    Two ranges are much tighter than one for both, because photos with the same longest side differ only in the shorter.

    Args:
        sizes: (height, width) px of each expected image; kernels are tuned for each range's most frequent size.
    """
    groups: dict[bool, Counter[Size]] = {}
    for height, width in sizes:
        groups.setdefault(height > width, Counter())[height, width] += 1
    return [
        SizeRange(elementwise(min, counts), counts.most_common(1)[0][0], elementwise(max, counts))
        for counts in groups.values()
    ]


def elementwise(pick: Callable[[Iterable[int]], int], sizes: Iterable[Size]) -> Size:
    heights, widths = zip(*sizes, strict=True)
    return pick(heights), pick(widths)


def profiles(graph: str, ranges: Sequence[SizeRange], batch: int, descriptor: str = "cvnet") -> list[Profile]:
    """Return the optimisation profiles of one of `GRAPHS`.

    The descriptor graph gets one per range and scale other than 1, the features graph one per range (it runs at scale
    1), the reranker one per pair of a query's and a key's range.

    Args:
        batch: largest batch of images, or of candidates per query; kernels are tuned for it.
        descriptor: descriptor of the image graphs, which determines how images are scaled.

    Raises:
        ExportError: unknown graph.
    """
    match graph:
        case "descriptor":
            return [image_profile(r, scale, batch, descriptor) for r in ranges for scale in IMAGE_SCALES if scale != 1]
        case "features":
            return [image_profile(r, 1.0, batch, descriptor) for r in ranges]
        case "reranker":
            return [
                map_shapes("query", q, (1, 1, 1)) | map_shapes("key", k, (1, batch, batch))
                for q in ranges
                for k in ranges
            ]
        case _:
            raise ExportError(f"graph {graph!r} is unknown; expected one of {', '.join(g.name for g in GRAPHS)}")


def image_profile(sizes: SizeRange, scale: float, batch: int, descriptor: str) -> Profile:
    scaled = DESCRIPTORS[descriptor].scaled
    smallest, best, largest = (scaled(size, scale) for size in (sizes.smallest, sizes.best, sizes.largest))
    return {"image": ((1, 3, *smallest), (batch, 3, *best), (batch, 3, *largest))}


def map_shapes(side: str, sizes: SizeRange, batches: tuple[int, int, int]) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Return the shapes of the three maps of one side, 'query' or 'key', for a range of image sizes."""
    smallest, best, largest = (
        [(batch, MAP_DIM, *positions) for positions in unit_map_sizes(map_size(size))]
        for batch, size in zip(batches, (sizes.smallest, sizes.best, sizes.largest), strict=True)
    )
    return {f"{side}_{s}": (smallest[s], best[s], largest[s]) for s in range(len(smallest))}


# the limit of 2^31 elements


def largest_tensor(graph: Path, shapes: Mapping[str, Shape]) -> tuple[int, str]:
    """Return the number of elements and the name of the graph's largest tensor for these input shapes."""
    return max((elements(value), str(value.name)) for node in sized(graph, shapes).graph for value in node.outputs)


def sized(graph: Path, shapes: Mapping[str, Shape]) -> ir.Model:
    """Load a graph with fixed input shapes and fold its shape arithmetic, so that every tensor's shape is known."""
    model = ir.load(graph)
    for value in model.graph.inputs:
        value.shape = ir.Shape(shapes[str(value.name)])
    outputs = [value for node in model.graph for value in node.outputs]
    for value in outputs:
        value.shape = None  # replaces the symbolic shape by an inferred one
    optimizer.optimize_ir(model, num_iterations=1)
    return model


def elements(value: ir.Value) -> int:
    sizes = list(value.shape) if value.shape is not None else [None]
    if not all(isinstance(size, int) for size in sizes):
        raise ExportError(
            f"tensor {value.name!r}: shape {value.shape} depends on values; expected shapes that depend on sizes only"
        )
    return math.prod(size for size in sizes if isinstance(size, int))


def largest_batch(graph: Path, profile: Profile) -> int:
    """Return the largest batch that keeps all tensors below 2^31 elements at a profile's largest sizes; may be 0."""
    one_each = {name: (1, *largest[1:]) for name, (_, _, largest) in profile.items()}
    return LARGEST_ELEMENTS // largest_tensor(graph, one_each)[0]


def check_batch(graph: Path, profile: Profile) -> None:
    """Raise ExportError if a profile's largest shapes lead to a tensor of 2^31 elements or more."""
    shapes = {name: largest for name, (_, _, largest) in profile.items()}
    size, tensor = largest_tensor(graph, shapes)
    if size > LARGEST_ELEMENTS:
        sizes = ", ".join(f"{name} {x_joined(shape)}" for name, shape in shapes.items())
        raise ExportError(
            f"{graph.name}: tensor {tensor!r} would have {size} elements at {sizes}; TensorRT takes less than 2^31: "
            f"expected a batch of at most {largest_batch(graph, profile)} at this size, or smaller images"
        )


# building


def build_plan(
    graph: Path,
    plan: Path,
    profiles: Sequence[Profile],
    timing_cache: Path,
    options: PlanOptions,
    progress: Callable[[str, float], None],
) -> None:
    """Compile `graph` (ONNX) to `plan`. For this machine's GPU, also write a layer report beside it (suffix .json).

    Args:
        timing_cache: file of kernel timings, read if it exists and rewritten, which speeds up later builds on this GPU.
        progress: called with the name of each outermost phase and its fraction done.

    Raises:
        BackendError: no GPU or no TensorRT on this machine, or an unknown target.
        ExportError: a profile is too large, or TensorRT cannot parse or compile the graph.
    """
    if options.targets:
        tensorrt = import_tensorrt_rtx()
    else:
        require_device()
        tensorrt = import_tensorrt()
    for profile in profiles:
        check_batch(graph, profile)
    log = error_log(tensorrt)
    log.errors.clear()
    builder: trt.Builder = tensorrt.Builder(log)
    network = parse(tensorrt, builder, log, graph)
    config = configure(tensorrt, builder, options)
    for profile in profiles:
        if config.add_optimization_profile(optimization_profile(builder, profile)) < 0:
            raise ExportError(f"{graph.name}: a profile does not fit ({first_error(log)}); give other --sizes")
    if not options.targets:
        read_timing_cache(config, timing_cache)
    monitor = progress_monitor(tensorrt, progress)
    config.progress_monitor = monitor
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise ExportError(
            f"{graph.name}: {library(tensorrt)} does not compile it ({first_error(log)}); "
            "free GPU memory, or build the bundle for smaller --sizes"
        )
    plan.write_bytes(serialized)
    if not options.targets:
        cache: trt.ITimingCache = config.get_timing_cache()
        timing_cache.write_bytes(cache.serialize())
        plan.with_suffix(".json").write_text(inspect(tensorrt, log, plan))


def library(tensorrt: Any) -> str:
    """Return the name and version of a TensorRT module."""
    name = "TensorRT for RTX" if tensorrt.__name__ == "tensorrt_rtx" else "TensorRT"
    return f"{name} {tensorrt.__version__}"


def parse(tensorrt: Any, builder: trt.Builder, log: trt.ILogger, graph: Path) -> trt.INetworkDefinition:
    """Parse an ONNX file into a strongly typed network.

    Raises:
        ExportError: the parser failed; the message has its first error and the node.
    """
    network: trt.INetworkDefinition = builder.create_network(
        1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    )
    parser: trt.OnnxParser = tensorrt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        reason = "it gave no reason"
        if parser.num_errors:
            error: trt.ParserError = parser.get_error(0)
            reason = f"{error.node_operator()} {error.node_name()}: {' '.join(error.desc().split())[:300]}"
        raise ExportError(
            f"{graph.name}: {library(tensorrt)} does not read it ({reason}); "
            "install the version of the extra (TensorRT 10.12 to 10.16 or 11), or give another --backend"
        )
    return network


def configure(tensorrt: Any, builder: trt.Builder, options: PlanOptions) -> trt.IBuilderConfig:
    config: trt.IBuilderConfig = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    config.builder_optimization_level = options.optimization_level
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # on by default; float32 in the graph means float32
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED  # layers and kernels, for `inspect`
    if options.targets:
        set_targets(tensorrt, config, options.targets)
    return config


def optimization_profile(builder: trt.Builder, profile: Profile) -> trt.IOptimizationProfile:
    compiled: trt.IOptimizationProfile = builder.create_optimization_profile()
    for name, (smallest, best, largest) in profile.items():
        compiled.set_shape(name, smallest, best, largest)
    return compiled


def read_timing_cache(config: trt.IBuilderConfig, file: Path) -> None:
    """Pass the timings in a file to the builder; those of another GPU or TensorRT version are ignored."""
    kept: trt.ITimingCache | None = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    if kept is None or not config.set_timing_cache(kept, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def progress_monitor(tensorrt: Any, progress: Callable[[str, float], None]) -> Any:
    """Return a TensorRT progress monitor that reports outermost phases, on TensorRT's threads."""

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self.steps[phase_name] = num_steps
                progress(phase_name, 0.0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.steps:
                progress(phase_name, (step + 1) / self.steps[phase_name])
            return True  # continue; False would cancel the build

        def phase_finish(self, phase_name: str) -> None:
            if self.steps.pop(phase_name, None):
                progress(phase_name, 1.0)

    return Monitor()


def inspect(tensorrt: Any, log: trt.ILogger, plan: Path) -> str:
    """Return a plan's layers as JSON."""
    runtime: trt.Runtime = tensorrt.Runtime(log)
    engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan.read_bytes())
    assert engine is not None
    inspector: trt.EngineInspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(tensorrt.LayerInformationFormat.JSON))
