"""ONNX graph to TensorRT plan: optimisation profiles from image sizes, and the builder that compiles.

The network is strongly typed: precision is decided in the graph (`export.precision`), the builder only picks kernels.
Works with TensorRT 10.12 to 10.16 and 11, and with TensorRT for RTX 1.7, which compiles without a GPU. Objects of
TensorRT are annotated throughout, for the contract test of tests/engine/backends/tensorrt_contract.py.
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
LARGEST_ELEMENTS = 2**31 - 1  # of one tensor, whose elements TensorRT counts in 32 bits


@dataclass(frozen=True)
class PlanOptions:
    """How much the builder may take, how hard it tries, and what for.

    Attributes:
        targets: GPU architectures that TensorRT for RTX compiles for ahead of time, some of
            `engine.backends.tensorrt_rtx.TARGETS`; by default TensorRT compiles for this machine's GPU.
    """

    workspace_bytes: int = 4 << 30
    optimization_level: int = 3  # 0 builds fastest, 5 tries most kernels
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class SizeRange:
    """Image sizes that one optimisation profile covers, (height, width) in pixels; `best` is the one tuned for."""

    smallest: Size
    best: Size
    largest: Size


# profiles


def size_ranges(sizes: Iterable[Size]) -> list[SizeRange]:
    """A range for the portrait and one for the landscape images among `sizes`; squares count as landscape.

    Two ranges are far tighter than one over both: photos of one longest side differ only in the shorter.

    Args:
        sizes: (height, width) px of each image to come; the most frequent is tuned for.
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
    """The optimisation profiles of one of `GRAPHS` for image sizes.

    The descriptor gets one for each range and reduced or enlarged scale, the features one for each range (they read
    the image as it is), the reranker one for each pair of a query's and a key's range.

    Args:
        batch: the most images, or keys of one query, at once; it is the batch tuned for.
        descriptor: that the image graphs make, which says how images are scaled.
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
    """Shapes of the three unit maps of a side, 'query' or 'key', of images of these sizes."""
    smallest, best, largest = (
        [(batch, MAP_DIM, *positions) for positions in unit_map_sizes(map_size(size))]
        for batch, size in zip(batches, (sizes.smallest, sizes.best, sizes.largest), strict=True)
    )
    return {f"{side}_{s}": (smallest[s], best[s], largest[s]) for s in range(len(smallest))}


# the limit of 2^31 elements


def largest_tensor(graph: Path, shapes: Mapping[str, Shape]) -> tuple[int, str]:
    """Elements and name of the largest tensor inside a graph fed with inputs of these shapes."""
    return max((elements(value), str(value.name)) for node in sized(graph, shapes).graph for value in node.outputs)


def sized(graph: Path, shapes: Mapping[str, Shape]) -> ir.Model:
    """A graph fed with inputs of these shapes: its shape arithmetic folds into constants, and every size is known."""
    model = ir.load(graph)
    for value in model.graph.inputs:
        value.shape = ir.Shape(shapes[str(value.name)])
    outputs = [value for node in model.graph for value in node.outputs]
    for value in outputs:
        value.shape = None  # the symbolic one
    optimizer.optimize_ir(model, num_iterations=1)
    return model


def elements(value: ir.Value) -> int:
    sizes = list(value.shape) if value.shape is not None else [None]
    if not all(isinstance(size, int) for size in sizes):
        raise ExportError(f"tensor {value.name!r}: shape {value.shape} is not known in advance; expected sizes only")
    return math.prod(size for size in sizes if isinstance(size, int))


def largest_batch(graph: Path, profile: Profile) -> int:
    """The most images, or keys, whose tensors all stay below 2^31 elements at a profile's largest sizes; may be 0."""
    one_each = {name: (1, *largest[1:]) for name, (_, _, largest) in profile.items()}
    return LARGEST_ELEMENTS // largest_tensor(graph, one_each)[0]


def check_batch(graph: Path, profile: Profile) -> None:
    """Raise ExportError where a profile's largest shapes make a tensor of 2^31 elements or more."""
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
    """Compile `graph` (ONNX) to `plan`; where that is for this machine's GPU, `plan` with .json says what was compiled.

    Args:
        timing_cache: measured kernels, read if there and written anew; it makes the next build for this GPU faster.
        progress: told the name of each outermost phase and the fraction of it that is done.

    Raises:
        BackendError: no GPU or TensorRT here, a target that there is not.
        ExportError: a profile too large, or a graph that TensorRT does not parse or compile.
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
            raise ExportError(f"{graph.name}: a profile does not fit ({first_error(log)}); expected other --sizes")
    if not options.targets:
        read_timing_cache(config, timing_cache)
    monitor = progress_monitor(tensorrt, progress)
    config.progress_monitor = monitor
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise ExportError(
            f"{graph.name}: {library(tensorrt)} does not compile it ({first_error(log)}); "
            "give the GPU's memory free, a larger workspace or smaller --sizes"
        )
    plan.write_bytes(serialized)
    if not options.targets:
        cache: trt.ITimingCache = config.get_timing_cache()
        timing_cache.write_bytes(cache.serialize())
        plan.with_suffix(".json").write_text(inspect(tensorrt, log, plan))


def library(tensorrt: Any) -> str:
    """A module's name and version in words."""
    name = "TensorRT for RTX" if tensorrt.__name__ == "tensorrt_rtx" else "TensorRT"
    return f"{name} {tensorrt.__version__}"


def parse(tensorrt: Any, builder: trt.Builder, log: trt.ILogger, graph: Path) -> trt.INetworkDefinition:
    """The network of an ONNX file, strongly typed.

    Raises:
        ExportError: the parser's first complaint, with the node that it is about.
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
            "expected the version of the extra (TensorRT 10.12 to 10.16 or 11), or another --backend"
        )
    return network


def configure(tensorrt: Any, builder: trt.Builder, options: PlanOptions) -> trt.IBuilderConfig:
    config: trt.IBuilderConfig = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    config.builder_optimization_level = options.optimization_level
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # on by default; float32 in the graph means float32
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED  # layer types and kernels, for `inspect`
    if options.targets:
        set_targets(tensorrt, config, options.targets)
    return config


def optimization_profile(builder: trt.Builder, profile: Profile) -> trt.IOptimizationProfile:
    compiled: trt.IOptimizationProfile = builder.create_optimization_profile()
    for name, (smallest, best, largest) in profile.items():
        compiled.set_shape(name, smallest, best, largest)
    return compiled


def read_timing_cache(config: trt.IBuilderConfig, file: Path) -> None:
    """Give the builder the timings kept in a file; those of another GPU or TensorRT count as none."""
    kept: trt.ITimingCache | None = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    if kept is None or not config.set_timing_cache(kept, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def progress_monitor(tensorrt: Any, progress: Callable[[str, float], None]) -> Any:
    """A TensorRT progress monitor that reports outermost phases; TensorRT calls it from threads of its own."""

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
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            if self.steps.pop(phase_name, None):
                progress(phase_name, 1.0)

    return Monitor()


def inspect(tensorrt: Any, log: trt.ILogger, plan: Path) -> str:
    """What a plan is made of, layer by layer, as JSON."""
    runtime: trt.Runtime = tensorrt.Runtime(log)
    engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan.read_bytes())
    assert engine is not None
    inspector: trt.EngineInspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(tensorrt.LayerInformationFormat.JSON))
