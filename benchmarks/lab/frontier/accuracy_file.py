"""File of the accuracies of all points, which take hours to compute, possibly on several machines.

The file is JSON with one line per point, so that two files can be compared line by line.
"""

from __future__ import annotations

import json
import re
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from benchmarks.lab.frontier.grid import Point
from benchmarks.lab.frontier.points import Judged
from benchmarks.lab.frontier.stopping import Counts
from cvnet_engine.benchmarks.accuracy.protocol import SETUPS
from cvnet_engine.engine.errors import DatasetError, one_line

LINE_A_POINT = re.compile(r"(?<=[\[,]) ?\[(?=\")")  # start of a point, which begins with its descriptor's name


@dataclass(frozen=True)
class Accuracies:
    """Accuracies on one data set.

    Attributes:
        published: AP in percent of each query in Medium, computed as published.
        stopped: pairs counted by `stopping`.
        points: every evaluated point.
    """

    published: list[float]
    stopped: Counts
    points: list[Judged]


@dataclass(frozen=True)
class AccuracyFile:
    """Accuracies of one model.

    Attributes:
        heads: command, date and machine of each run of `judge`.
        model: digest of the model's weights.
    """

    heads: list[dict[str, Any]]
    model: str
    datasets: dict[str, Accuracies]

    def to_json(self) -> str:
        content = {
            name: {
                "published": [round(ap, 4) for ap in found.published],
                "pairs in full": found.stopped,
                "points": list(map(row, found.points)),
            }
            for name, found in self.datasets.items()
        }
        text = json.dumps({"heads": self.heads, "model": self.model, "datasets": content})
        return LINE_A_POINT.sub("\n[", text) + "\n"


def row(judged: Judged) -> list[Any]:
    """Return a point's axes in the order of `Point`, mAP by setup, loss and its standard error, with 4 decimals."""
    figures = (*(judged.means[setup] for setup in SETUPS), *judged.loss)
    return [*astuple(judged.point), *(round(figure, 4) for figure in figures)]


def read(file: Path, model: str) -> AccuracyFile:
    """Read the file.

    Args:
        model: expected digest.

    Raises:
        DatasetError: the file cannot be read, has other content, or belongs to another model.
    """
    try:
        content = json.loads(file.read_text())
        datasets = {name: accuracies(found) for name, found in content["datasets"].items()}
        found = AccuracyFile(content["heads"], content["model"], datasets)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{file}: no accuracies ({one_line(error)}); expected what 'python -m benchmarks.lab.frontier judge' writes"
        ) from error
    if found.model != model:
        raise DatasetError(f"{file}: of model {found.model}, not {model}; name a file of this model with --accuracy")
    return found


def accuracies(content: dict[str, Any]) -> Accuracies:
    stopped = {
        int(k): {int(most): mean for most, mean in means.items()} for k, means in content["pairs in full"].items()
    }
    return Accuracies(content["published"], stopped, [judged_of(*cells) for cells in content["points"]])


def judged_of(descriptor: str, scales: list[float], *cells: Any) -> Judged:
    *axes, easy, medium, hard, lost, error = cells
    point = Point(descriptor, tuple(scales), *axes)
    return Judged(point, dict(zip(SETUPS, (easy, medium, hard), strict=True)), (lost, error))
