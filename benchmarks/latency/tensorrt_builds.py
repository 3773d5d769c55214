"""What TensorRT for RTX makes of each graph, on any machine: `python -m benchmarks.latency.tensorrt_builds --out FILE`.

Every graph in every precision is parsed and compiled ahead of time for each target, with the profile of one photo size.
Nothing is run.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from cvnet_engine.benchmarks import commands
from cvnet_engine.benchmarks.commands import DepthOption, OutOption, WeightsOption
from cvnet_engine.benchmarks.latency.photos import photo
from cvnet_engine.benchmarks.tables import Table, markdown
from cvnet_engine.cvnet import checkpoint
from cvnet_engine.engine import machine
from cvnet_engine.engine.backends import BACKENDS
from cvnet_engine.engine.backends.tensorrt import error_log
from cvnet_engine.engine.backends.tensorrt_rtx import import_tensorrt_rtx
from cvnet_engine.engine.errors import CvnetError
from cvnet_engine.engine.graphs import IMAGE_GRAPHS
from cvnet_engine.engine.images import normalise
from cvnet_engine.engine.retrieval.retriever import BATCH
from cvnet_engine.export.artifacts import Artifacts
from cvnet_engine.export.tensorrt_plan import PlanOptions, SizeRange, build_plan, parse, profiles

TARGETS = ("sm86", "sm89", "sm120")
SIZE = (768, 1024)  # height, width px
CALIBRATION_SIZE = (192, 256)


@dataclass(frozen=True)
class Build:
    """One compilation; `refused` is the library's reason where there is one, and then nothing else is known.

    `layers` are those of the parsed network, `seconds` from reading the graph to the plan's file.
    """

    graph: str
    precision: str
    target: str
    layers: int = 0
    seconds: float = 0.0
    plan_bytes: int = 0
    refused: str = ""


def compiled(graph: str, precision: str, target: str, file: Path) -> Build:
    tensorrt = import_tensorrt_rtx()
    batch = 1 if graph in IMAGE_GRAPHS else BATCH
    shapes = profiles(graph, [SizeRange(SIZE, SIZE, SIZE)], batch)
    plan = file.with_suffix(".plan")
    try:
        log = error_log(tensorrt)
        builder = tensorrt.Builder(log)
        layers = parse(tensorrt, builder, log, file).num_layers
        started = time.perf_counter()
        build_plan(file, plan, shapes, file.with_suffix(".cache"), PlanOptions(targets=(target,)), lambda *_: None)
        seconds = time.perf_counter() - started
    except CvnetError as error:
        return Build(graph, precision, target, refused=str(error))
    return Build(graph, precision, target, layers, round(seconds, 1), plan.stat().st_size)


def graphs(folder: Path, weights: str, depth: int) -> dict[tuple[str, str], Path]:
    """(graph, precision that it computes in) -> its file."""
    model = checkpoint.load(weights, depth)
    backend = BACKENDS["tensorrt-rtx"]
    found: dict[tuple[str, str], Path] = {}
    photos = [normalise(photo(*CALIBRATION_SIZE, seed=0))]
    for precision in ("fp32", "fp16", "int8"):
        artifacts = Artifacts(folder, model, precision, photos, [], (), lambda step: typer.echo(step, err=True))
        for graph, computed in backend.precisions.items():
            if computed[precision] == precision:
                found[graph, precision] = artifacts.to_compile(graph, precision)
    return found


def table(builds: list[Build], title: str) -> Table:
    rows = tuple(
        (b.graph, b.precision, b.target, b.refused or str(b.layers), f"{b.seconds:.1f}", f"{b.plan_bytes / 1e6:.1f}")
        for b in builds
    )
    return Table(title, ("graph", "precision", "target", "layers", "seconds", "plan, MB"), rows)


def main(
    out: OutOption,
    weights: WeightsOption = "seeded:0",
    depth: DepthOption = 50,
) -> None:
    """Compile every graph in every precision for each target, and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        files = graphs(Path(folder), weights, depth)
        builds = []
        for (graph, precision), file in files.items():
            for target in TARGETS:
                typer.echo(f"compiling {graph} in {precision} for {target}", err=True)
                builds.append(compiled(graph, precision, target, file))
    version = import_tensorrt_rtx().__version__
    report = {
        **commands.head("benchmarks.latency.tensorrt_builds"),
        "model": f"ResNet-{depth} {weights}",
        "tensorrt_rtx": version,
        "size": SIZE,
        "builds": [asdict(build) for build in builds],
    }
    model = f"ResNet-{depth} {weights}, images of {SIZE[1]}x{SIZE[0]}"
    title = f"Compiled and not run: TensorRT for RTX {version}, {model}, on {machine.cpu_name()}"
    commands.write(out, report, markdown(table(builds, title), text_columns=3))


if __name__ == "__main__":
    with commands.told_in_a_line():
        typer.run(main)
