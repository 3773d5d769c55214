"""Terminal output: tables and lines on standard output, progress on standard error, JSON in files."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from cvnet_engine.engine.bundle import Manifest
from cvnet_engine.engine.errors import CvnetError
from cvnet_engine.engine.files import write_atomically
from cvnet_engine.outputs import STANDARD_OUTPUT

if TYPE_CHECKING:
    from cvnet_engine.engine.gallery.writer import GalleryWriter

# control characters, line separators, bidirectional controls, and the surrogates that stand for undecodable bytes
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
PIPE_WIDTH = 200  # columns if the output is not a terminal, so that paths are not wrapped
LINE_EVERY_S = 30.0  # between progress lines if standard error is not a terminal

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True, highlight=False)

UNTRAINED = (
    "The seeded model is untrained: its weights are random numbers. It shows that the engine computes what PyTorch "
    "computes, and how fast; which images it ranks first, and its mAP, mean nothing."
)
DEMONSTRATION = (
    "This is the demonstration model: small, trained on generated façades (docs/demo-model.md). Its rankings show how "
    "the engine works, not how well CVNet does; for that, build with the published weights."
)


class RateColumn(ProgressColumn):
    """Progress column: steps per second, or seconds per step below one step per second."""

    def render(self, task: Task) -> Text:
        return Text(rate(task.speed), style="dim") if task.speed else Text("")


class Lines:
    """Progress as plain lines on standard error, at most one every `LINE_EVERY_S` seconds."""

    def __init__(self, description: str, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._description, self._total, self._clock = description, total or 0, clock
        self._done = self._told = 0  # steps so far, and at the last printed line
        self._told_at = clock()

    def advance(self, steps: int = 1, total: int | None = None) -> None:
        self._done += steps
        self._total = total or self._total
        now = self._clock()
        if now - self._told_at < LINE_EVERY_S:
            return
        speed = (self._done - self._told) / (
            now - self._told_at
        )  # since the last line, because skipped images are much faster
        left = duration((self._total - self._done) / speed)
        line = f"{self._description}: {self._done} of {self._total}, {rate(speed)}, {left} left"
        err.print(Text(line), soft_wrap=True)
        self._told, self._told_at = self._done, now


def rate(speed: float) -> str:
    """Format a speed in steps per second, or as seconds per step below one step per second."""
    return f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each"


def duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextlib.contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show count, rate and time left: a progress bar on a terminal, plain lines elsewhere.

    Yields the callback to call after each step or steps: `advance(steps=1, total=None)`.
    """
    if not err.is_terminal:
        yield Lines(description, total).advance
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        RateColumn(), TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda steps=1, total=None: bar.update(task, advance=steps, total=total)


def say(text: str = "") -> None:
    """Print a line of plain text."""
    out.print(Text(printable(text)))


def warn(text: str) -> None:
    """Print a highlighted line."""
    out.print(Text(printable(text), style="yellow"))


def notice(manifest: Manifest) -> str | None:
    """Return the warning for untrained and demonstration models; None for real checkpoints."""
    if not manifest.trained:
        return UNTRAINED
    return DEMONSTRATION if manifest.is_demonstration else None


def warn_of_model(manifest: Manifest) -> None:
    """Print the model's warning, if any, once per process."""
    text = notice(manifest)
    if text:
        warn_once(text)


def warn_of_repairs(writer: GalleryWriter, remedy: str = "") -> None:
    """Print the problems that were found and repaired when a gallery was opened for writing, if any."""
    if writer.repairs:
        warn(f"{writer.path}: {', '.join(writer.repairs)}{remedy}")


@cache
def warn_once(text: str) -> None:
    warn(text)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table. The first column and columns titled `path` are left-aligned, the others right-aligned."""
    grid = Table(
        title=title, title_justify="left", title_style="bold", show_header=any(columns), box=None, pad_edge=False,
        padding=(0, 2, 0, 0),
    )  # fmt: skip
    for number, column in enumerate(columns):
        grid.add_column(column, justify="left" if number == 0 or column == "path" else "right", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    out.print(grid)


def emit(text: str) -> None:
    """Write text to standard output and flush it; undecodable bytes of file names are kept unless it is a terminal."""
    stream = sys.__stdout__
    assert stream
    stream.buffer.write(os.fsencode(printable(text) if stream.isatty() else text))
    stream.flush()


def write_json(file: Path, content: Any) -> None:
    """Write results as JSON; NaN becomes null."""
    write_file(file, json.dumps(finite(content), indent=2) + "\n")


def write_file(file: Path, text: str) -> None:
    """Write a result file atomically, or to `STANDARD_OUTPUT`.

    Raises:
        CvnetError: the folder does not exist, or the disk is full.
    """
    try:
        if file == STANDARD_OUTPUT:
            print(printable(text), end="", file=sys.__stdout__, flush=True)
        else:
            write_atomically(file, printable(text))
    except OSError as error:
        raise CvnetError(
            f"{file}: cannot be written ({error.strerror}); choose a file in a folder that exists and has space"
        ) from error


def finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value


def printable(text: str) -> str:
    """Replace control characters and undecodable bytes of file names by U+FFFD."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
