"""Files that backends run: ONNX graphs in each precision, TensorRT plans, and the native pair scorer's weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine.backends import BACKENDS
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import ExportError
from cvnet_engine.engine.geometry import IMAGE_GRAPHS
from cvnet_engine.engine.retrieval.engines import BATCH
from cvnet_engine.export.graphs import DESCRIPTOR, FEATURES, GRAPHS
from cvnet_engine.export.onnx_export import cut, export
from cvnet_engine.export.precision import INT8_MAX, cpu_weight_max, take_half_keys, to_fp16, to_int8


@dataclass
class Pace:
    """Forecast of compile time from the plans compiled so far; `work` is operators times optimisation profiles."""

    work: int = 0
    seconds: float = 0.0

    def add(self, graph: Path, profiles: int, seconds: float) -> None:
        self.work += operators(graph) * profiles
        self.seconds += seconds

    def forecast(self, graph: Path, profiles: int) -> str:
        """Return a text to append to the elapsed seconds; empty before the first plan is compiled."""
        if not self.work:
            return ""
        return f" (forecast: {self.seconds / self.work * operators(graph) * profiles:.0f} s in all)"


def operators(graph: Path) -> int:
    return len(ir.load(graph).graph)


@dataclass
class Artifacts:
    """Creates files in a folder on first use.

    Attributes:
        calibration: normalised images (1, 3, H, W) float32 for int8.
        sizes: image sizes (height, width) px to build TensorRT plans for.
        targets: GPU architectures to compile plans for ahead of time (TensorRT for RTX only).
        step: called with a description of each slow step.
    """

    folder: Path
    model: CVNet
    precision: str
    calibration: list[Array]
    sizes: list[tuple[int, int]]
    targets: tuple[str, ...]
    step: Callable[[str], None]
    _made: dict[str, Path] = field(default_factory=dict)
    _pace: Pace = field(default_factory=Pace)

    def file(self, graph: str, backend: str) -> Path:
        """Return the file that a backend runs for a graph; the backend must support the graph."""
        precision = BACKENDS[backend].precisions[graph][self.precision]
        match BACKENDS[backend].suffix:
            case ".npz":
                return self._make("reranker.npz", self._write_weights)
            case ".plan":
                source = self.to_compile(graph, precision)
                return self._make(f"{graph}.plan", lambda plan: self._build_plan(graph, source, plan))
            case _:
                return self.typed(graph, precision, cpu_weight_max())

    def typed(self, graph: str, precision: str, weight_max: int = INT8_MAX) -> Path:
        """Return the ONNX graph in a precision; bf16 is chosen by the backend, so its graph is in fp32.

        Args:
            weight_max: largest integer that an int8 weight may take.
        """
        plain = self._plain(graph)
        match precision:
            case "fp16":
                return self._make(f"{graph}.fp16.onnx", lambda file: to_fp16(plain, file))
            case "int8":
                name = f"{graph}.int8.onnx" if weight_max == INT8_MAX else f"{graph}.int8-{weight_max}.onnx"
                return self._make(name, lambda file: to_int8(plain, file, self.calibration, weight_max))
            case _:
                return plain

    def to_compile(self, graph: str, precision: str) -> Path:
        """Return the graph to compile to a plan: as `typed`, but the reranker takes candidates' maps in float16."""
        typed = self.typed(graph, precision)
        if graph in IMAGE_GRAPHS:
            return typed
        return self._make(f"{graph}.{precision}.half-keys.onnx", lambda file: take_half_keys(typed, file))

    def _plain(self, graph: str) -> Path:
        """Return the graph in fp32."""
        if graph == DESCRIPTOR.name:
            features = self._plain(FEATURES.name)
            return self._make("descriptor.onnx", lambda file: cut(features, DESCRIPTOR, file))
        (described,) = (g for g in GRAPHS if g.name == graph)
        return self._make(f"{graph}.onnx", lambda file: export(described, self.model, file))

    def _make(self, name: str, write: Callable[[Path], None]) -> Path:
        if name not in self._made:
            self.step(f"making {name}")
            write(self.folder / name)
            self._made[name] = self.folder / name
        return self._made[name]

    def _write_weights(self, file: Path) -> None:
        """Write the verification network's tensors under their published names."""
        np.savez(file, **{name: t.cpu().numpy() for name, t in self.model.reranker.learner.state_dict().items()})

    def _build_plan(self, graph: str, source: Path, plan: Path) -> None:
        from cvnet_engine.export.tensorrt_plan import PlanOptions, build_plan, profiles, size_ranges

        if not self.sizes:
            raise ExportError("TensorRT plans need image sizes; give --sizes, such as 1024x768,768x1024")
        batch = 1 if graph in IMAGE_GRAPHS else BATCH
        shapes = profiles(graph, size_ranges(self.sizes), batch, self.model.descriptor)
        forecast = self._pace.forecast(source, len(shapes))
        started = time.perf_counter()

        def progress(phase: str, done: float) -> None:
            self.step(f"{plan.name}: {phase} {done:.0%}, {time.perf_counter() - started:.0f} s{forecast}")

        build_plan(source, plan, shapes, self.folder / "timing.cache", PlanOptions(targets=self.targets), progress)
        self._pace.add(source, len(shapes), time.perf_counter() - started)
