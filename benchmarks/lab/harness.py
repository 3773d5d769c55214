"""Shared parts of the lab commands: options, timing, progress, and reports as JSON and Markdown."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from cvnet_engine.engine import machine
from cvnet_engine.engine.errors import CvnetError
from cvnet_engine.engine.files import write_atomically

DataDirOption = Annotated[
    Path, typer.Option("--data-dir", help="Folder of data sets; missing generated ones are written there.")
]
OutOption = Annotated[Path, typer.Option("--out", help="Writes OUT.json and OUT.md.")]
NoteOption = Annotated[str, typer.Option("--note", help="What else the machine was doing, for the report.")]
WeightsOption = Annotated[str, typer.Option("--weights", help="As for 'build'.")]
DepthOption = Annotated[int, typer.Option("--depth", help="As for 'build'.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1)]

T = TypeVar("T")


@contextlib.contextmanager
def errors_as_one_line() -> Iterator[None]:
    """Turn a CvnetError into a one-line message and exit."""
    try:
        yield
    except CvnetError as error:
        sys.exit(str(error))


def log(line: str) -> None:
    """Write a line of progress to standard error, with the time of day."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


class Progress:
    """Progress on standard error: a line for each tenth of the work."""

    def __init__(self, work: str, total: int) -> None:
        self._work, self._total, self._done = work, total, 0

    def advance(self) -> None:
        before, self._done = self._done, self._done + 1
        if 10 * before // self._total < 10 * self._done // self._total:
            log(f"{self._work}: {self._done / self._total:.0%}")


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """Return a call's result, and its seconds."""
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started


def memory_bytes(field: str, file: str = "status") -> int:
    """Return a field of /proc/self/status, or of another file there, in bytes: VmHWM is the peak of resident memory.

    `benchmarks.latency.memory` has the same, but imports PyTorch, which takes memory itself.
    """
    lines = Path("/proc/self", file).read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def head(module: str) -> dict[str, Any]:
    """Return the command, date and machine of a report."""
    return {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": machine.describe(),
    }


def head_line(report: Mapping[str, Any]) -> str:
    """Format the head of a report as a line of Markdown."""
    return f"{report['machine']['cpu']}; {report['date']}; `{report['command']}`"


def write(out: Path, title: str, report: Mapping[str, Any], *parts: str) -> str:
    """Write a report with a `head` to OUT.json, and its title, head and parts to OUT.md; returns the latter's text."""
    text = "\n".join([f"# {title}\n", f"{head_line(report)}\n", *parts])
    write_files(out, report, text)
    return text


def write_files(out: Path, report: Mapping[str, Any], text: str) -> None:
    """Write OUT.json and OUT.md."""
    write_atomically(beside(out, ".json"), json.dumps(report, indent=2) + "\n")
    write_atomically(beside(out, ".md"), text)


def beside(out: Path, suffix: str) -> Path:
    """Append a suffix to OUT; dots in its name are kept."""
    return out.with_name(f"{out.name}{suffix}")
