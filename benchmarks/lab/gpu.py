"""`cvnet-engine bench` on an NVIDIA GPU, with more methods: `python -m benchmarks.lab.gpu --bundle DIR --out FILE`.

Besides PyTorch in float32 (eager and compiled) and the bundles as they run, these methods are compared and timed:
PyTorch in float16, and each TensorRT bundle with CUDA graphs. Times of all methods include the copies between host and
GPU.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.lab import harness
from benchmarks.lab.harness import OutOption
from cvnet_engine.benchmarks.latency import bench
from cvnet_engine.benchmarks.latency.document import document
from cvnet_engine.benchmarks.latency.report import Report
from cvnet_engine.benchmarks.methods.method import REFERENCE, Method
from cvnet_engine.benchmarks.runs import Settings
from cvnet_engine.engine.backends.tensorrt import TensorRtEngine, require_device
from cvnet_engine.engine.backends.tensorrt_rtx import TensorRtRtxEngine
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.contract import Array, Closing, Engine
from cvnet_engine.engine.errors import BackendError, CvnetError, one_line
from cvnet_engine.engine.geometry import GRAPH_NAMES
from cvnet_engine.engine.machine import usable_cpus
from cvnet_engine.engine.retrieval.descriptors import DESCRIPTORS
from cvnet_engine.engine.retrieval.engines import Engines

ENGINES: dict[str, Callable[[Path, bool], Engine]] = {"tensorrt": TensorRtEngine, "tensorrt-rtx": TensorRtRtxEngine}
SEARCHED = 10_000  # descriptors for global search


class HalfPrecision(Closing):
    """A PyTorch engine under float16 autocast, which keeps operations that would overflow in float32."""

    def __init__(self, engine: Engine, device: str) -> None:
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self._engine, self._device = engine, device

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        with torch.autocast(self._device, torch.float16):
            outputs = self._engine.run(feeds)
        return {name: array.astype("float32") for name, array in outputs.items()}

    def close(self) -> None:
        """Do nothing: the engine belongs to the float32 reference."""


def half_precision(reference: Method) -> Method:
    """Return the PyTorch reference in float16."""
    device, engines = reference.backend.removeprefix("torch-"), reference.engines
    engines = replace(
        engines,
        descriptor=HalfPrecision(engines.descriptor, device),
        features=HalfPrecision(engines.features, device),
        reranker=HalfPrecision(engines.reranker, device),
    )
    return replace(reference, name=f"{REFERENCE} fp16", precision="fp16", engines=engines)


def with_cuda_graphs(path: Path) -> Method:
    """Open a TensorRT bundle whose runs are launched as CUDA graphs."""
    bundle = Bundle(path)
    manifest = bundle.manifest
    with contextlib.ExitStack() as opened:
        graphs = []
        for name in GRAPH_NAMES:
            graph = manifest.graphs[name]
            if graph.backend not in ENGINES:
                raise BackendError(f"{graph.backend} has no CUDA graphs")
            graphs.append(opened.enter_context(ENGINES[graph.backend](bundle.path / graph.file, True)))
        opened.pop_all()
    descriptor, features, reranker = graphs
    engines = Engines(descriptor, features, reranker, DESCRIPTORS[manifest.descriptor])
    return Method(name_of(path), manifest.backend, manifest.precision, "", engines)


def name_of(path: Path) -> str:
    return f"{path.resolve().name}, CUDA graphs"


def run(settings: Settings, command: str) -> Report:
    """Compare and time all methods; a method that cannot be opened is listed with the reason."""
    with contextlib.ExitStack() as opened, tempfile.TemporaryDirectory() as folder:
        methods, absent = bench.open_all(settings, opened)
        half = half_precision(methods[REFERENCE])
        methods[half.name] = half
        for path in settings.bundles:
            try:
                methods[name_of(path)] = opened.enter_context(with_cuda_graphs(path))
            except CvnetError as error:
                absent[name_of(path)] = one_line(error)
        measured = bench.Run(settings, Path(folder), harness.log, methods, absent=absent)
        measured.look()
        started = time.perf_counter()
        for size in settings.sizes:
            bench.measure_size(measured, size)
        bench.measure_search(measured)
        report = measured.report(command, started)
    # the limits are the processor's, not the GPU's
    return replace(report, records=tuple(replace(record, floor_ms=None) for record in report.records))


def main(
    bundle: Annotated[list[Path], typer.Option(help="As for 'bench'; can be repeated.")],
    out: OutOption,
    height: Annotated[int, typer.Option(min=64, help="Of the images, in pixels.")] = 768,
    width: Annotated[int, typer.Option(min=64, help="Of the images, in pixels.")] = 1024,
    shortlist: Annotated[int, typer.Option(min=1, help="Candidates reranked per query.")] = 100,
    compiled: Annotated[bool, typer.Option(help="Also time torch.compile, which takes minutes.")] = True,
    budget: Annotated[float, typer.Option(help="Seconds per stage.")] = 20,
) -> None:
    """Compare and time bundles and PyTorch on this machine's NVIDIA GPU."""
    require_device()
    torch.backends.cudnn.allow_tf32 = False  # real float32 in PyTorch, as in TensorRT
    settings = Settings(
        bundles=tuple(bundle),
        sizes=((height, width),),
        galleries=(SEARCHED,),
        shortlists=(shortlist,),
        threads=usable_cpus(),
        compiled=compiled,
        budget_s=budget,
    )
    report = run(settings, harness.head("benchmarks.lab.gpu")["command"])
    text = document(report)
    harness.write_files(out, report.to_json(), text)
    sys.stdout.write(text)


if __name__ == "__main__":
    with harness.errors_as_one_line():
        typer.run(main)
