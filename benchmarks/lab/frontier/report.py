"""Report of the frontier: presets and Pareto-optimal points with their accuracy and cost, as JSON and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.lab.frontier.accuracy import JUDGED_BY, Accuracy
from benchmarks.lab.frontier.grid import RERANK_FULL, Point
from benchmarks.lab.frontier.times import Times
from benchmarks.lab.harness import head_line
from cvnet_engine.benchmarks import tables
from cvnet_engine.benchmarks.tables import Table
from cvnet_engine.engine.presets import PRESETS, Preset

Labelled = dict[str, "Costed"]


@dataclass(frozen=True)
class Costed(Accuracy):
    """Accuracy and cost of a point.

    Attributes:
        query_s, index_s: seconds per query, and per indexed image.
        candidate_s: reranking seconds per candidate.
        image_bytes: bytes per image in a gallery.
    """

    query_s: float
    index_s: float
    candidate_s: float
    image_bytes: float

    @property
    def score(self) -> float:
        return self.means[JUDGED_BY]


def costed(found: Iterable[Accuracy], times: Times) -> list[Costed]:
    """Add costs to the points whose stages were timed; this processor may lack a precision evaluated elsewhere."""
    return [
        Costed(
            **vars(accuracy),
            query_s=times.query_s(accuracy.point),
            index_s=times.index_s(accuracy.point),
            candidate_s=times.rerank_s(accuracy.point) / max(accuracy.point.shortlist, 1),
            image_bytes=times.image_bytes(accuracy.point),
        )
        for accuracy in found
        if times.cover(accuracy.point)
    ]


def pareto(points: Iterable[Costed], cost: Callable[[Costed], float]) -> list[Costed]:
    """Return the points that no other point beats in both cost and accuracy, cheapest first.

    Among points equal in both, the smallest and fastest is chosen. Without pair scores, map formats differ only in
    bytes, so such points occur.
    """
    best: list[Costed] = []
    for candidate in sorted(points, key=lambda c: (cost(c), -c.score, c.image_bytes, c.query_s)):
        if not best or candidate.score > best[-1].score:
            best.append(candidate)
    return best


def parts(found: Sequence[Costed]) -> dict[str, Labelled]:
    """Group the points of a data set that are worth reporting, by title."""
    full = {f"fewer in full {number}": Preset(rerank_full=few) for number, few in enumerate(RERANK_FULL)}
    return {
        "Presets": presets(found),
        "Pareto frontier of accuracy and seconds per query": numbered(pareto(found, lambda c: c.query_s)),
        "Pareto frontier of accuracy and bytes per image": numbered(pareto(found, lambda c: c.image_bytes)),
        "Coarse-to-fine reranking, all else as published": numbered(of_presets(found, full).values()),
    }


def presets(found: Sequence[Costed]) -> Labelled:
    return of_presets(found, PRESETS)


def of_presets(found: Sequence[Costed], named: Mapping[Any, Preset]) -> Labelled:
    """Return the points of the presets that the data set has."""
    by_point = {c.point: c for c in found}
    largest_px = max(c.point.max_side_px for c in found)  # at which the data set's images keep their size
    points = {label: by_point.get(Point.of_preset(preset, largest_px)) for label, preset in named.items()}
    return {label: c for label, c in points.items() if c}


def numbered(points: Iterable[Costed]) -> Labelled:
    return {str(number): c for number, c in enumerate(points, 1)}


def to_json(
    head: Mapping[str, Any], heads: list[dict[str, Any]], note: str, times: Times, datasets: dict[str, list[Costed]]
) -> dict[str, Any]:
    """Return the report as plain values.

    Args:
        heads: head of each run of `judge`.
        note: other load on the machine while times were measured.
    """
    return {
        **head,
        "judged": heads,
        "note": note,
        "seconds": {" ".join(map(str, stage)): figures for stage, figures in times.seconds.items()},
        "datasets": {
            dataset: {
                title: [{"label": label, **asdict(c)} for label, c in points.items()]
                for title, points in parts(found).items()
            }
            for dataset, found in datasets.items()
        },
    }


def markdown(report: Mapping[str, Any]) -> str:
    """Format the output of `to_json`, without its head."""
    lines = ["mAP was computed by:", "", *(f"- {head_line(head)}" for head in report["judged"]), "", report["note"], ""]
    for dataset, found in report["datasets"].items():
        lines += [f"## {dataset}", ""]
        for title, rows in found.items():
            lines.append(tables.markdown(table(title, from_json(rows)), text_columns=1))
    return "\n".join(lines)


def table(title: str, points: Labelled) -> Table:
    columns = ("point", "Medium mAP", "lost", "s per query", "s per indexed image", "kB per image")
    rows = tuple(
        (
            f"{label}: {c.point}",
            f"{c.score:.2f}",
            f"{c.loss[0]:.2f} ± {c.loss[1]:.2f}",
            f"{c.query_s:.3f}",
            f"{c.index_s:.3f}",
            f"{c.image_bytes / 1000:,.0f}",
        )
        for label, c in points.items()
    )
    return Table(title, columns, rows)


def from_json(rows: Iterable[Mapping[str, Any]]) -> Labelled:
    """Read the points that `to_json` wrote under a title."""
    found = {}
    for content in map(dict, rows):
        label, point, (lost, error) = content.pop("label"), content.pop("point"), content.pop("loss")
        found[label] = Costed(Point(**point | {"scales": tuple(point["scales"])}), loss=(lost, error), **content)
    return found
