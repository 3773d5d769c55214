"""Accuracy, time and storage of every configuration: `python -m benchmarks.lab.frontier judge|report`.

`judge` computes the descriptors and pair scores of whole data sets, and from these the mAP of every point of the grid.
It takes hours and resumes after an interruption. `report` times the stages of searching and indexing, which needs an
idle machine, and combines both: accuracy against seconds and bytes.

    python -m benchmarks.lab.frontier judge  --data-dir data --dataset landmarks-mini --dataset test --work frontier
    python -m benchmarks.lab.frontier report --data-dir data --work frontier --out benchmarks/results/frontier

Accuracies are about the same on another machine, so `report` suffices there. The file keeps accuracies of other
machines until `judge` replaces them.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.lab import harness
from benchmarks.lab.frontier import times
from benchmarks.lab.frontier.accuracy import Accuracy, AccuracyFile, Figures, accuracies, with_losses
from benchmarks.lab.frontier.grid import Point
from benchmarks.lab.frontier.plot import draw
from benchmarks.lab.frontier.report import costed, markdown, presets, to_json
from benchmarks.lab.frontier.scores import EngineCache, Setting, Work, settings
from benchmarks.lab.harness import DataDirOption, DepthOption, NoteOption, ThreadsOption, WeightsOption
from benchmarks.lab.subject import load_or_generate, photos_for_int8
from cvnet_engine.benchmarks.accuracy.journal import Journal
from cvnet_engine.cvnet import checkpoint
from cvnet_engine.engine import machine
from cvnet_engine.engine.backends.native.engine import accelerated
from cvnet_engine.engine.files import write_atomically
from cvnet_engine.engine.presets import PRESETS

app = typer.Typer(no_args_is_help=True, add_completion=False)

DATA = Path("data")
ACCURACY = Path("benchmarks/results/frontier-accuracy.json")
AccuracyOption = Annotated[Path, typer.Option("--accuracy", help="File of every point's mAP, as 'judge' writes it.")]
WorkOption = Annotated[Path, typer.Option("--work", help="Folder that keeps what was computed.")]
CalibrationOption = Annotated[
    Path | None, typer.Option("--calibration", help="Calibration images for int8; default: validation scenes.")
]


@app.command()
def judge(
    dataset: Annotated[list[str], typer.Option(help="Data set, or generated scenes: demo, test. Can be repeated.")],
    work: WorkOption,
    data_dir: DataDirOption = DATA,
    accuracy: AccuracyOption = ACCURACY,
    calibration: CalibrationOption = None,
    weights: WeightsOption = "demo",
    depth: DepthOption = 50,
    threads: ThreadsOption = 2,
) -> None:
    """Compute what is missing, then mAP of every point; earlier results of other points are kept."""
    model, photos = digest(weights, depth), photos_for_int8(calibration, data_dir)
    before = AccuracyFile.read(accuracy, model) if accuracy.exists() else AccuracyFile([], model, {})
    found = settings([load_or_generate(name, data_dir) for name in dataset], model, photos)
    here = [setting for setting in found if accelerated(setting.precision)]
    if skipped := sorted({setting.precision for setting in found} - {setting.precision for setting in here}):
        harness.log(f"skipped, because this processor lacks their instructions: {', '.join(skipped)}")
    datasets = before.datasets
    with Journal(work / "scores.sqlite") as journal, EngineCache(weights, depth, photos, threads) as engines:
        done = Work(journal, engines)
        for setting in here:
            compute(done, setting)
        for name in dataset:
            now = judge_dataset(done, [setting for setting in here if setting.dataset.name == name])
            by_point = {known.point: known for known in (*datasets.get(name, []), *now)}
            datasets = datasets | {name: list(by_point.values())}
    heads = [*before.heads, harness.head("benchmarks.lab.frontier")]
    write_atomically(accuracy, AccuracyFile(heads, model, datasets).to_json())


def compute(work: Work, setting: Setting) -> None:
    """Compute the missing descriptors and pair scores of a setting."""
    steps = list(work.missing(setting))
    progress = harness.Progress(setting.name, len(steps))
    for step in steps:
        step()
        progress.advance()


def judge_dataset(work: Work, found: list[Setting]) -> list[Accuracy]:
    """Evaluate a data set's settings, the last of which is the published computation."""
    figures: dict[Point, Figures] = {}
    for setting in found:
        harness.log(f"{setting.name}: judging")
        figures |= dict(accuracies(work, setting))
    return with_losses(figures, Point.of_preset(PRESETS["exact"], found[-1].max_side_px))


@app.command()
def report(
    work: WorkOption,
    out: Annotated[Path, typer.Option(help="Writes OUT.json, OUT.md and OUT.svg.")],
    data_dir: DataDirOption = DATA,
    accuracy: AccuracyOption = ACCURACY,
    calibration: CalibrationOption = None,
    note: NoteOption = "",
    weights: WeightsOption = "demo",
    depth: DepthOption = 50,
    threads: ThreadsOption = 2,
) -> None:
    """Time every stage if this machine has not yet (ten minutes, idle), and write accuracy and cost of every point."""
    known = AccuracyFile.read(accuracy, digest(weights, depth))
    identity = digest(weights, depth), version("openvino"), machine.cpu_name(), machine.cpu_features(), threads
    with Journal(work / "scores.sqlite") as journal:
        taken = times.take(
            journal,
            identity,
            lambda: EngineCache(weights, depth, photos_for_int8(calibration, data_dir), threads),
        )
    points = {name: costed(found, taken) for name, found in known.datasets.items()}
    content = to_json(harness.head("benchmarks.lab.frontier"), known.heads, note, taken, points)
    text = harness.write(out, "Accuracy against time and space", content, markdown(content))
    first, found = next(iter(points.items()))
    figure = draw(f"{first}, {threads} threads of {machine.cpu_name()}", found, presets(found))
    write_atomically(harness.beside(out, ".svg"), figure)
    sys.stdout.write(text)


@cache
def digest(weights: str, depth: int) -> str:
    """Return the digest of the model's weights."""
    return checkpoint.digest(checkpoint.load(weights, depth))


if __name__ == "__main__":
    with harness.errors_as_one_line():
        app()
