"""Plans of TensorRT for RTX, compiled without a GPU, and their table in docs/tensorrt.md.

`python -m tests.export.compiled_plans --markdown docs/tensorrt.md` replaces the table between the two marker lines.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from cvnet_engine.benchmarks.tables import Table, markdown, replace_section
from cvnet_engine.cvnet import checkpoint
from cvnet_engine.engine.backends import BACKENDS
from cvnet_engine.engine.backends.tensorrt import error_log
from cvnet_engine.engine.backends.tensorrt_rtx import import_tensorrt_rtx
from cvnet_engine.engine.files import write_atomically
from cvnet_engine.export.artifacts import Artifacts
from cvnet_engine.export.tensorrt_plan import PlanOptions, SizeRange, build_plan, parse, profiles

TARGETS = ("sm86", "sm89", "sm120")
# graph, precision that it computes in: int8 has the float16 reranker
MATRIX = sorted({(g, p) for g, asked in BACKENDS["tensorrt-rtx"].precisions.items() for p in asked.values()})
PHOTOS = [SizeRange((683, 1024), (768, 1024), (768, 1024)), SizeRange((1024, 683), (1024, 768), (1024, 768))]
CALIBRATION = [np.random.default_rng(0).standard_normal((1, 3, 96, 128), np.float32)]
COMMAND = "python -m tests.export.compiled_plans"


def compile_for_photos(graph: str, file: Path, folder: Path, target: str) -> tuple[float, int]:
    """Seconds to compile a graph for photos of 1024 px, and bytes of the plan."""
    plan, started = folder / f"{target}.plan", time.perf_counter()
    build_plan(
        file, plan, profiles(graph, PHOTOS, 1), folder / "timings", PlanOptions(targets=(target,)), lambda *_: None
    )
    return time.perf_counter() - started, plan.stat().st_size


def table() -> Table:
    """Compile every graph of ResNet-50 with random weights: a row per graph and precision."""
    tensorrt, rows = import_tensorrt_rtx(), []
    model = checkpoint.load("seeded:0", 50)
    with TemporaryDirectory() as folder:
        for graph, precision in MATRIX:
            file = Artifacts(Path(folder), model, precision, CALIBRATION, [], (), lambda _: None).to_compile(
                graph, precision
            )
            log = error_log(tensorrt)
            layers = parse(tensorrt, tensorrt.Builder(log), log, file).num_layers
            compiled = [compile_for_photos(graph, file, Path(folder), target) for target in TARGETS]
            cells = (f"{seconds:.1f} s, {size / 1e6:.1f} MB" for seconds, size in compiled)
            rows.append((graph, precision, str(layers), *cells))
    title = f"Compiled by TensorRT for RTX {tensorrt.__version__} for photos of 1024x768 px; time and size of the plan"
    return Table(title, ("graph", "precision", "layers", *TARGETS), tuple(rows))


def main(
    document: Annotated[Path, typer.Option("--markdown", help="Document whose section 'plans' is replaced.")],
) -> None:
    """Compile every graph for each target and write the table."""
    text = replace_section(document.read_text(), "plans", COMMAND, markdown(table()))
    write_atomically(document, text)


if __name__ == "__main__":
    typer.run(main)
