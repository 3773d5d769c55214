"""The file that a backend runs for a graph: the graph itself, one of reduced precision, a plan, or bare weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cvnet.model import CVNet
from engine.errors import ExportError
from engine.retriever import BATCH
from engine.session import Array
from export.graphs import DESCRIPTOR, FEATURES, GRAPHS
from export.onnx_export import cut, export
from export.precision import to_fp16, to_int8

IMAGE_GRAPHS = ("descriptor", "features")


def supports(backend: str, graph: str, precision: str) -> bool:
    """Whether a backend computes a graph in a precision; of int8 the image graphs are, the reranker where it can be."""
    match backend:
        case "onnxruntime":
            return precision == "fp32"  # its CPU provider has no bf16, and is slower in fp16 and s8 x s8 than in fp32
        case "onnxruntime-cuda":
            return precision in ("fp32", "fp16")
        case "openvino":
            return precision in ("fp32", "bf16", "int8")
        case "native":
            return graph == "reranker" and precision in ("fp32", "bf16", "int8")
        case "tensorrt":
            return precision in ("fp32", "fp16", "int8")
        case _:
            return False


@dataclass
class Artifacts:
    """Makes files in a folder, each when it is first asked for.

    Attributes:
        calibration: normalised images (1, 3, H, W) float32 for int8.
        sizes: image sizes (height, width) px that TensorRT plans are made for.
        step: told what takes long.
    """

    folder: Path
    model: CVNet
    precision: str
    calibration: list[Array]
    sizes: list[tuple[int, int]]
    step: Callable[[str], None]
    _made: dict[str, Path] = field(default_factory=dict)

    def file(self, graph: str, backend: str) -> Path:
        """The file of a graph for a backend that `supports` it."""
        if backend == "native":
            return self._make("reranker.npz", self._write_weights)
        typed = self._typed(graph, backend)
        if backend != "tensorrt":
            return typed
        return self._make(f"{graph}.plan", lambda plan: self._build_plan(graph, typed, plan))

    def _typed(self, graph: str, backend: str) -> Path:
        """The graph in the precision that it decides itself."""
        plain = self._plain(graph)
        if self.precision == "fp16" or (self.precision == "int8" and graph == "reranker" and backend == "tensorrt"):
            return self._make(f"{graph}.fp16.onnx", lambda file: to_fp16(plain, file))
        if self.precision == "int8" and graph in IMAGE_GRAPHS:
            return self._make(f"{graph}.int8.onnx", lambda file: to_int8(plain, file, self.calibration))
        return plain

    def _plain(self, graph: str) -> Path:
        """The graph in fp32."""
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
        """The verification network's tensors by published name."""
        np.savez(file, **{name: t.cpu().numpy() for name, t in self.model.reranker.learner.state_dict().items()})

    def _build_plan(self, graph: str, source: Path, plan: Path) -> None:
        from export.tensorrt_plan import PlanOptions, build_plan, profiles, size_ranges

        if not self.sizes:
            raise ExportError("TensorRT plans are made for image sizes; expected --sizes, such as 1024x768,768x1024")
        batch = 1 if graph in IMAGE_GRAPHS else BATCH
        build_plan(
            source,
            plan,
            profiles(graph, size_ranges(self.sizes), batch),
            self.folder / "timing.cache",
            PlanOptions(),
            lambda phase, done: self.step(f"{plan.name}: {phase} {done:.0%}"),
        )
