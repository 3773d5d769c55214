"""Accuracy, time and storage of every configuration: `python -m benchmarks.lab.frontier score|judge|time|report`.

`score` computes descriptors and pair scores of whole data sets. It takes hours and resumes after an interruption.
`judge` computes mAP of every scored point of the grid. `time` times the stages of searching and indexing and needs an
idle machine. `report` combines both: accuracy against seconds and bytes.

    python -m benchmarks.lab.frontier score --data-dir data --dataset landmarks-mini --dataset test --work frontier
    python -m benchmarks.lab.frontier judge --data-dir data --dataset landmarks-mini --dataset test --work frontier
    python -m benchmarks.lab.frontier time --data-dir data --work frontier
    python -m benchmarks.lab.frontier report --work frontier --out benchmarks/results/frontier

Accuracies are about the same on another machine, so `time` and `report` suffice there. The file keeps
accuracies of other machines until `judge` replaces them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.lab import commands
from benchmarks.lab.commands import (
    CalibrationOption,
    DataDirOption,
    DatasetsOption,
    DepthOption,
    ThreadsOption,
    WeightsOption,
)
from benchmarks.lab.frontier import accuracy_file, times
from benchmarks.lab.frontier.accuracy import Figures, accuracies
from benchmarks.lab.frontier.accuracy_file import Accuracies, AccuracyFile
from benchmarks.lab.frontier.grid import DESCRIPTORS, Point
from benchmarks.lab.frontier.plot import draw
from benchmarks.lab.frontier.points import JUDGED_BY, costed, judgements
from benchmarks.lab.frontier.report import FrontierReport, at, presets
from benchmarks.lab.frontier.scores import EngineCache, Setting, Step, Work, settings
from benchmarks.lab.frontier.stopping import stopping
from benchmarks.lab.subject import load_or_generate, photos_for_int8
from cvnet_engine.benchmarks.accuracy.journal import Facts, Journal
from cvnet_engine.cvnet import checkpoint
from cvnet_engine.engine import machine
from cvnet_engine.engine.backends.native.engine import accelerated
from cvnet_engine.engine.errors import DatasetError
from cvnet_engine.engine.files import write_atomically
from cvnet_engine.engine.presets import PRESETS

PROGRESS_EVERY_S = 30

app = typer.Typer(no_args_is_help=True, add_completion=False)

ACCURACY = Path("benchmarks/results/frontier-accuracy.json")
NOTHING = Accuracies([], {}, [])
AccuracyOption = Annotated[Path, typer.Option("--accuracy", help="File of every point's mAP, as 'judge' writes it.")]
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
    """Compute missing descriptors at every scale, and missing pair scores at full and at coarse resolution."""
    with opened(data_dir, dataset, work, calibration, weights, depth, threads) as (found, done):
        steps: list[Step] = []
        for setting in found:
            if accelerated(setting.precision):
                steps += done.left(setting)
            else:
                log(f"{setting.name}: skipped, this processor lacks its instructions")
        perform(steps)


@app.command("time")
def take_times(
    data_dir: DataDirOption,
    work: WorkOption,
    calibration: CalibrationOption = None,
    weights: WeightsOption = "demo",
    depth: DepthOption = 50,
    threads: ThreadsOption = 2,
) -> None:
    """Time the stages of indexing and searching at every image size. Takes minutes; needs an idle machine."""
    with opened(data_dir, [], work, calibration, weights, depth, threads) as (_, done):
        times.take(done.journal, done.engines, timed_by(weights, depth, threads), log)


@app.command()
def judge(
    data_dir: DataDirOption,
    dataset: DatasetsOption,
    work: WorkOption,
    accuracy: AccuracyOption = ACCURACY,
    calibration: CalibrationOption = None,
    weights: WeightsOption = "demo",
    depth: DepthOption = 50,
    threads: ThreadsOption = 2,
) -> None:
    """Compute mAP of every fully scored point; earlier results of other points are kept."""
    model = digest(weights, depth)
    before = accuracy_file.read(accuracy, model) if accuracy.exists() else AccuracyFile([], model, {})
    with opened(data_dir, dataset, work, calibration, weights, depth, threads) as (found, done):
        judged = {
            name: accuracies_of(done, [s for s in found if s.dataset.name == name], before.datasets.get(name, NOTHING))
            for name in dataset
        }
    heads = [*before.heads, commands.head("benchmarks.lab.frontier")]
    write_atomically(accuracy, AccuracyFile(heads, model, before.datasets | judged).to_json())


def accuracies_of(done: Work, settings: Sequence[Setting], before: Accuracies) -> Accuracies:
    """Evaluate a data set's settings, the last of which is the published computation.

    Raises:
        DatasetError: the published computation was neither scored now nor evaluated before.
    """
    figures: dict[Point, Figures] = {}
    for setting in settings:
        for descriptor, maps in product(DESCRIPTORS, setting.maps):
            scored = done.has(setting, descriptor, maps)
            log(f"{setting.name}, {descriptor}, {maps}: {'judging' if scored else 'not scored to the end'}")
            if scored:
                figures |= dict(accuracies(done, setting, descriptor, maps))
    exact = at(PRESETS["exact"], settings[-1].max_side_px)
    if exact in figures:
        published, stopped = figures[exact][JUDGED_BY], stopping(done, settings[-1])
    else:
        published, stopped = before.published, before.stopped
    if not published:
        raise DatasetError(f"{settings[-1].name}: scores are missing; run 'python -m benchmarks.lab.frontier score'")
    found = {judged.point: judged for judged in (*before.points, *judgements(figures, published))}
    return Accuracies(published, stopped, list(found.values()))


@app.command()
def report(
    work: WorkOption,
    out: Annotated[Path, typer.Option(help="Writes OUT.json, OUT.md and OUT.svg.")],
    accuracy: AccuracyOption = ACCURACY,
    note: Annotated[str, typer.Option(help="What else the machine was doing while times were taken.")] = "",
    weights: WeightsOption = "demo",
    depth: DepthOption = 50,
    threads: ThreadsOption = 2,
) -> None:
    """Write the frontier: accuracy and cost of every point."""
    judged = accuracy_file.read(accuracy, digest(weights, depth))
    with Journal(work / "scores.sqlite") as journal:
        taken = times.taken(journal, timed_by(weights, depth, threads))
    points = {name: costed(found.points, taken) for name, found in judged.datasets.items()}
    stopped = {name: found.stopped for name, found in judged.datasets.items()}
    head = commands.head("benchmarks.lab.frontier")
    content = FrontierReport(**head, judged=judged.heads, note=note, times=taken, datasets=points, stopped=stopped)
    commands.write(out, content.to_json(), content.markdown())
    first, found = next(iter(points.items()))
    figure = draw(f"{first}, {threads} threads of {machine.cpu_name()}", found, presets(found), ".svg")
    write_atomically(commands.beside(out, ".svg"), figure)
    sys.stdout.write(content.markdown())


@contextmanager
def opened(
    data_dir: Path, names: Sequence[str], work: Path, calibration: Path | None, weights: str, depth: int, threads: int
) -> Iterator[tuple[list[Setting], Work]]:
    """Yield every setting of the grid, and the work on them."""
    loaded = [load_or_generate(name, data_dir) for name in names]
    photos = photos_for_int8(calibration, data_dir)
    with Journal(work / "scores.sqlite") as journal, EngineCache(weights, depth, photos, threads) as engines:
        yield settings(loaded, digest(weights, depth), photos), Work(journal, engines, depth)


def timed_by(weights: str, depth: int, threads: int) -> Facts:
    """Return the key of stored times: model, library, processor and threads."""
    return digest(weights, depth), version("openvino"), machine.cpu_name(), machine.cpu_features(), threads


@cache
def digest(weights: str, depth: int) -> str:
    """Return the digest of the model's weights."""
    return checkpoint.digest(checkpoint.load(weights, depth))


def perform(steps: Sequence[Step]) -> None:
    """Run all steps and report progress every `PROGRESS_EVERY_S` seconds."""
    total, done = sum(step.cost for step in steps), 0.0
    started = reported = time.monotonic()
    for step in steps:
        step.run()
        done += step.cost
        now = time.monotonic()
        if now - reported >= PROGRESS_EVERY_S or step is steps[-1]:
            reported, left_s = now, (now - started) * (total - done) / done
            log(f"{step.name}; {done / total:.1%} done, about {left_s / 60:.0f} min left")


def log(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    with commands.errors_as_one_line():
        app()
