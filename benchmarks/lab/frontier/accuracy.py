"""mAP of every point of the grid, computed from stored scores by the rules of `eval`, and the file that holds it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lab.frontier.grid import DESCRIPTORS, METHODS, SCALES, Point, plans
from benchmarks.lab.frontier.scores import Picture, Setting, Work
from cvnet_engine.benchmarks.accuracy.dataset import GroundTruth
from cvnet_engine.benchmarks.accuracy.evaluation import reranked
from cvnet_engine.benchmarks.accuracy.protocol import SETUPS, ignored, judge
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import DatasetError, one_line
from cvnet_engine.engine.geometry import IMAGE_SCALES
from cvnet_engine.engine.retrieval.descriptors import DESCRIPTORS as KINDS
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.search import similarities
from cvnet_engine.engine.retrieval.searcher import Plan
from cvnet_engine.engine.retrieval.superglobal import rerank

JUDGED_BY = "M"  # setup of the reported accuracy
POINT_START = re.compile(r"(?<=[\[,]) ?\[(?=\")")  # a point's row begins with its descriptor's name

Figures = dict[str, list[float]]  # setup -> AP in percent of each query that has relevant images


@dataclass(frozen=True)
class Known:
    """Results computed for one query: its descriptor (D,), and pair scores (n,) with every database image."""

    descriptor: Array
    full: Array
    coarse: Array
    truth: GroundTruth


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a point on one data set.

    Attributes:
        means: mAP in percent by setup.
        loss: points of Medium mAP lost against the published computation, and the standard error over queries.
    """

    point: Point
    means: dict[str, float]
    loss: tuple[float, float]


@dataclass(frozen=True)
class AccuracyFile:
    """Accuracies of one model, which take hours to compute, possibly on several machines.

    Attributes:
        heads: command, date and machine of each run of `judge`.
        model: digest of the model's weights.
        datasets: the points of each data set.
    """

    heads: list[dict[str, Any]]
    model: str
    datasets: dict[str, list[Accuracy]]

    @classmethod
    def read(cls, file: Path, model: str) -> AccuracyFile:
        """Read the file.

        Args:
            model: expected digest.

        Raises:
            DatasetError: the file cannot be read, has other content, or belongs to another model.
        """
        try:
            content = json.loads(file.read_text())
            datasets = {
                name: [from_row(*cells) for cells in found["points"]] for name, found in content["datasets"].items()
            }
            found = cls(content["heads"], content["model"], datasets)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"{file}: no accuracies ({one_line(error)}); expected the output of "
                "'python -m benchmarks.lab.frontier judge'"
            ) from error
        if found.model != model:
            raise DatasetError(
                f"{file}: accuracies of model {found.model}, expected {model}; name a file of this model with "
                "--accuracy"
            )
        return found

    def to_json(self) -> str:
        """Return the content of the file: one line per point, so that two files can be compared line by line."""
        datasets = {name: {"points": list(map(to_row, points))} for name, points in self.datasets.items()}
        text = json.dumps({"heads": self.heads, "model": self.model, "datasets": datasets})
        return POINT_START.sub("\n[", text) + "\n"


def to_row(accuracy: Accuracy) -> list[Any]:
    """Return a point's axes in the order of `Point`, mAP by setup, loss and its standard error, with 4 decimals."""
    figures = (*(accuracy.means[setup] for setup in SETUPS), *accuracy.loss)
    return [*astuple(accuracy.point), *(round(figure, 4) for figure in figures)]


def from_row(descriptor: str, scales: list[float], *cells: Any) -> Accuracy:
    *axes, easy, medium, hard, lost, error = cells
    point = Point(descriptor, tuple(scales), *axes)
    return Accuracy(point, dict(zip(SETUPS, (easy, medium, hard), strict=True)), (lost, error))


def with_losses(figures: Mapping[Point, Figures], published: Point) -> list[Accuracy]:
    """Return mAP of every point of a data set, and its loss against the published one."""
    baseline = figures[published][JUDGED_BY]
    return [
        Accuracy(point, {setup: float(np.mean(aps[setup])) for setup in SETUPS}, loss(baseline, aps[JUDGED_BY]))
        for point, aps in figures.items()
    ]


def loss(published: Sequence[float], aps: Sequence[float]) -> tuple[float, float]:
    """Return the mean AP lost over queries, and its standard error."""
    lost = np.subtract(published, aps)
    return float(lost.mean()), float(lost.std(ddof=1) / np.sqrt(len(lost)))


def accuracies(work: Work, setting: Setting) -> Iterator[tuple[Point, Figures]]:
    """Yield the APs of every point of a setting, all of whose scores must be stored."""
    for descriptor, maps, scales in product(DESCRIPTORS, setting.maps, SCALES):
        for plan, figures in evaluated(*known(work, setting, descriptor, scales, maps)).items():
            chosen = descriptor, scales, setting.max_side_px, setting.precision, maps
            yield Point(*chosen, plan.method, plan.rerank, plan.rerank_full), figures


def known(
    work: Work, setting: Setting, descriptor: str, scales: Sequence[float], maps: str
) -> tuple[Array, list[Known]]:
    """Return the database descriptors (n, D), and the results of every query."""

    def described(picture: Picture) -> Array:
        found = work.stored(setting.descriptor_facts(descriptor, picture))["descriptors"]
        return KINDS[descriptor].over_scales(found[[IMAGE_SCALES.index(scale) for scale in scales]])

    queries = []
    for query, truth in zip(setting.queries, setting.dataset.ground_truth, strict=True):
        scores = work.stored(setting.pair_facts(maps, query))
        queries.append(Known(described(query), scores["full"], scores["pooled"], truth))
    return np.stack([described(image) for image in setting.images]), queries


def evaluated(database: Array, queries: Sequence[Known]) -> dict[Plan, Figures]:
    """Return the AP of every query by plan and setup, from the database descriptors (n, D)."""
    found: dict[Plan, Figures] = defaultdict(lambda: {setup: [] for setup in SETUPS})
    for query in queries:
        for plan, setup, rows in rankings(database, query):
            if result := judge(rows, query.truth, setup):
                found[plan][setup].append(100 * result.ap)
    return dict(found)


def rankings(database: Array, query: Known) -> Iterator[tuple[Plan, str, Array]]:
    """Yield the ranking (rows) of each plan in each setup."""
    ranking = Ranking.by_similarity(similarities(database, query.descriptor))
    for setup in SETUPS:
        yield Plan(rerank=0), setup, ranking.without(ignored(query.truth, setup)).rows
    for method in METHODS:
        for plan in plans(method):
            refined = rerank(query.descriptor, ranking, database, plan.refinement) if plan.refinement else ranking
            for setup in SETUPS:
                candidates = refined.without(ignored(query.truth, setup))
                yield plan, setup, reranked(candidates, plan, query.coarse.__getitem__, query.full.__getitem__).rows
