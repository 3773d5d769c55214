"""What every choice costs in accuracy, seconds and bytes: `python -m benchmarks.frontier score|...`.

`score` computes pair scores and descriptors, which takes hours and goes on where it was stopped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

import scenes
from benchmarks.accuracy import dataset as datasets
from benchmarks.accuracy.dataset import Dataset
from benchmarks.accuracy.journal import Journal
from benchmarks.frontier.scores import Engines, Setting, Step, Work, settings
from cvnet import checkpoint
from engine.errors import CvnetError
from export.build import calibration_photos

TOLD_EVERY_S = 30

app = typer.Typer(no_args_is_help=True, add_completion=False)

DataDirOption = Annotated[
    Path, typer.Option("--data-dir", help="Folder of data sets; generated ones are made there where missing.")
]
DatasetOption = Annotated[list[str], typer.Option("--dataset", help="Name of a data set, or of scenes: demo, test.")]
WorkOption = Annotated[Path, typer.Option("--work", help="Folder that keeps what was computed.")]
CalibrationOption = Annotated[
    Path | None, typer.Option("--calibration", help="Folder of images for int8; validation scenes if left out.")
]
WeightsOption = Annotated[str, typer.Option("--weights", help="As for 'build'.")]
DepthOption = Annotated[int, typer.Option("--depth", help="As for 'build'.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1)]


@app.callback()
def program() -> None:
    """What every choice costs in accuracy, seconds and bytes."""


@app.command()
def score(
    data_dir: DataDirOption,
    dataset: DatasetOption,
    work: WorkOption,
    calibration: CalibrationOption = None,
    weights: WeightsOption = "demo",
    depth: DepthOption = 50,
    threads: ThreadsOption = 2,
) -> None:
    """Compute what is missing: descriptors at every scale, pair scores at full size and on pooled maps."""
    with opened(data_dir, dataset, work, calibration, weights, depth, threads) as (found, done):
        perform([step for setting in found for step in done.left(setting)])


@contextmanager
def opened(
    data_dir: Path, names: Sequence[str], work: Path, calibration: Path | None, weights: str, depth: int, threads: int
) -> Iterator[tuple[list[Setting], Work]]:
    """Every setting of the grid, and the work on them."""
    loaded = [prepared(name, data_dir) for name in names]
    photos = calibration_photos(calibration or scenes.write(scenes.VALIDATION, data_dir) / "jpg", "int8")
    found = settings(loaded, checkpoint.load(weights, depth), photos)
    with Journal(work / "scores.sqlite") as journal, Engines(weights, depth, photos, threads) as engines:
        yield found, Work(journal, engines, depth)


def prepared(name: str, data_dir: Path) -> Dataset:
    """A data set by name, generated where it is ours and missing."""
    if name in scenes.SETS:
        scenes.write(scenes.SETS[name], data_dir)
    return datasets.load(data_dir, name)


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
    try:
        app()
    except CvnetError as error:
        sys.exit(str(error))
