"""The file of all points' accuracies: made once in hours, read wherever times are taken.

JSON with a line a point, so that two of them can be compared line by line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy.protocol import SETUPS
from benchmarks.frontier.grid import Point
from benchmarks.frontier.points import Judged
from benchmarks.frontier.stopping import Counts
from engine.errors import DatasetError, one_line

LINE_A_POINT = re.compile(r"(?<=[\[,]) ?\[(?=\")")  # where one begins: with its descriptor's name


@dataclass(frozen=True)
class Accuracies:
    """Of one data set: every point that was judged, and the pairs that `stopping` counted."""

    points: list[Judged]
    stopped: Counts


def to_json(head: Mapping[str, Any], datasets: Mapping[str, Accuracies]) -> str:
    """
    Args:
        head: which command made it, when and where.
    """
    content = {
        name: {"pairs in full": found.stopped, "points": list(map(row, found.points))}
        for name, found in datasets.items()
    }
    return LINE_A_POINT.sub("\n[", json.dumps({**head, "datasets": content})) + "\n"


def row(judged: Judged) -> list[Any]:
    """A point's axes in the order of `Point`, mAP by setup, points lost and the standard error; to a ten-thousandth."""
    figures = (*(judged.means[setup] for setup in SETUPS), *judged.loss)
    return [*astuple(judged.point), *(round(figure, 4) for figure in figures)]


def read(file: Path) -> dict[str, Accuracies]:
    """By data set.

    Raises:
        DatasetError: the file cannot be read, or is another one.
    """
    try:
        datasets = json.loads(file.read_text())["datasets"]
        return {name: accuracies(content) for name, content in datasets.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{file}: no accuracies ({one_line(error)}); expected what 'python -m benchmarks.frontier judge' writes"
        ) from error


def accuracies(content: dict[str, Any]) -> Accuracies:
    stopped = {
        int(k): {int(most): mean for most, mean in means.items()} for k, means in content["pairs in full"].items()
    }
    return Accuracies([judged_of(*cells) for cells in content["points"]], stopped)


def judged_of(descriptor: str, scales: list[float], *cells: Any) -> Judged:
    *axes, easy, medium, hard, lost, error = cells
    point = Point(descriptor, tuple(scales), *axes)
    return Judged(point, dict(zip(SETUPS, (easy, medium, hard), strict=True)), (lost, error))
