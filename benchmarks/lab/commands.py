"""Shared parts of the lab commands: options, the head of a report, and its output files."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from cvnet_engine.engine import machine
from cvnet_engine.engine.errors import CvnetError
from cvnet_engine.engine.files import write_atomically

DataDirOption = Annotated[
    Path, typer.Option("--data-dir", help="Folder of data sets; missing generated ones are written there.")
]
DatasetsOption = Annotated[
    list[str], typer.Option("--dataset", help="Name of a data set, or of generated scenes: demo, test.")
]
OutOption = Annotated[Path, typer.Option("--out", help="Writes OUT.json and OUT.md.")]
CalibrationOption = Annotated[
    Path | None,
    typer.Option("--calibration", help="Calibration images for int8; default: validation scenes."),
]
WeightsOption = Annotated[str, typer.Option("--weights", help="As for 'build'.")]
DepthOption = Annotated[int, typer.Option("--depth", help="As for 'build'.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1)]


@contextlib.contextmanager
def errors_as_one_line() -> Iterator[None]:
    """Turn a CvnetError into a one-line message and exit."""
    try:
        yield
    except CvnetError as error:
        sys.exit(str(error))


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


def write(out: Path, report: Mapping[str, Any], markdown: str) -> None:
    """Write OUT.json and OUT.md."""
    write_atomically(beside(out, ".json"), json.dumps(report, indent=2) + "\n")
    write_atomically(beside(out, ".md"), markdown)


def beside(out: Path, suffix: str) -> Path:
    """Append a suffix to OUT; dots in its name are kept."""
    return out.with_name(f"{out.name}{suffix}")
