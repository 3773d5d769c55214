r"""What every choice costs in accuracy, seconds and bytes: `python -m benchmarks.frontier score|time|report`.

`score` computes descriptors and pair scores of whole data sets, which takes hours and goes on where it was stopped;
`time` times the stages that searching and indexing are made of, which wants a machine that does nothing else; `report`
puts them together: accuracy against seconds and bytes, of every point of the grid.

    python -m benchmarks.frontier score --data-dir data --dataset landmarks-mini --dataset test --work frontier
    python -m benchmarks.frontier time --data-dir data --work frontier
    python -m benchmarks.frontier report --data-dir data --dataset landmarks-mini --dataset test --work frontier \
        --out benchmarks/results/frontier
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import commands
from benchmarks.accuracy.audit import photos_for_int8, prepared
from benchmarks.accuracy.journal import Facts, Journal
from benchmarks.commands import (
    CalibrationOption,
    DataDirOption,
    DatasetsOption,
    DepthOption,
    ThreadsOption,
    WeightsOption,
)
from benchmarks.frontier import times
from benchmarks.frontier.accuracy import accuracies
from benchmarks.frontier.plot import draw
from benchmarks.frontier.points import costed
from benchmarks.frontier.report import Report, at, presets
from benchmarks.frontier.scores import Engines, Setting, Step, Work, settings
from benchmarks.frontier.stopping import stopping
from cvnet import checkpoint
from engine import machine
from engine.files import write_atomically
from engine.presets import PRESETS

TOLD_EVERY_S = 30

app = typer.Typer(no_args_is_help=True, add_completion=False)

WorkOption = Annotated[Path, typer.Option("--work", help="Folder that keeps what was computed.")]


@app.command()
def score(
    data_dir: DataDirOption,
    dataset: DatasetsOption,
    work: WorkOption,
    calibration: CalibrationOption = None,
    weights: WeightsOption = "demo",
    depth: DepthOption = 50,
    threads: ThreadsOption = 2,
) -> None:
    """Compute what is missing: descriptors at every scale, pair scores at full size and on pooled maps."""
    with opened(data_dir, dataset, work, calibration, weights, depth, threads) as (found, done, _):
        perform([step for setting in found for step in done.left(setting)])


@app.command("time")
def take_times(
    data_dir: DataDirOption,
    work: WorkOption,
    calibration: CalibrationOption = None,
    weights: WeightsOption = "demo",
    depth: DepthOption = 50,
    threads: ThreadsOption = 2,
) -> None:
    """Time the stages that indexing and searching are made of, at every image size; minutes on an idle machine."""
    with opened(data_dir, [], work, calibration, weights, depth, threads) as (_, done, timed_by):
        times.take(done.journal, done.engines, timed_by, tell)


@app.command()
def report(
    data_dir: DataDirOption,
    dataset: DatasetsOption,
    work: WorkOption,
    out: Annotated[Path, typer.Option(help="Writes OUT.json, OUT.md and OUT.svg.")],
    note: Annotated[str, typer.Option(help="What else the machine was doing while times were taken.")] = "",
    calibration: CalibrationOption = None,
    weights: WeightsOption = "demo",
    depth: DepthOption = 50,
    threads: ThreadsOption = 2,
) -> None:
    """Write the frontier: every point's mAP follows from the scores, its costs from the times."""
    with opened(data_dir, dataset, work, calibration, weights, depth, threads) as (found, done, timed_by):
        taken = times.taken(done.journal, timed_by)
        points, stopped = {}, {}
        for name in dataset:
            tell(f"{name}: judging every point")
            own = [setting for setting in found if setting.dataset.name == name]
            figures = dict(pair for setting in own for pair in accuracies(done, setting))
            points[name] = costed(figures, at(PRESETS["exact"], own[-1].max_side_px), taken)
            stopped[name] = stopping(done, own[-1])
    content = Report(**commands.head("benchmarks.frontier"), note=note, times=taken, datasets=points, stopped=stopped)
    commands.write(out, content.to_json(), content.markdown())
    title = f"{dataset[0]}, {threads} threads of {machine.cpu_name()}"
    figure = draw(title, points[dataset[0]], presets(points[dataset[0]]), ".svg")
    write_atomically(commands.beside(out, ".svg"), figure)
    sys.stdout.write(content.markdown())


@contextmanager
def opened(
    data_dir: Path, names: Sequence[str], work: Path, calibration: Path | None, weights: str, depth: int, threads: int
) -> Iterator[tuple[list[Setting], Work, Facts]]:
    """Every setting of the grid, the work on them, and what times depend on."""
    loaded = [prepared(name, data_dir, None, work) for name in names]
    photos = photos_for_int8(calibration, data_dir)
    model = checkpoint.digest(checkpoint.load(weights, depth))
    timed_by = model, version("openvino"), machine.cpu_name(), threads
    with Journal(work / "scores.sqlite") as journal, Engines(weights, depth, photos, threads) as engines:
        yield settings(loaded, model, photos), Work(journal, engines, depth), timed_by


def perform(steps: Sequence[Step]) -> None:
    """Do all of them, telling now and then how far that is."""
    total, done = sum(step.cost for step in steps), 0.0
    started = told = time.monotonic()
    for step in steps:
        step.run()
        done += step.cost
        now = time.monotonic()
        if now - told >= TOLD_EVERY_S or step is steps[-1]:
            told, left_s = now, (now - started) * (total - done) / done
            tell(f"{step.name}; {done / total:.1%} done, about {left_s / 60:.0f} min left")


def tell(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    with commands.told_in_a_line():
        app()
