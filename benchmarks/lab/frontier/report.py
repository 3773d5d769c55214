"""Report of the frontier: presets and Pareto-optimal points, as JSON and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.lab import commands
from benchmarks.lab.frontier.grid import Point
from benchmarks.lab.frontier.points import Aim, Costed, name, pareto
from benchmarks.lab.frontier.stopping import Counts
from benchmarks.lab.frontier.times import Times
from cvnet_engine.benchmarks import tables
from cvnet_engine.benchmarks.accuracy.protocol import SETUPS
from cvnet_engine.benchmarks.tables import Table
from cvnet_engine.engine.machine import Machine
from cvnet_engine.engine.presets import PRESETS, Preset

AIMS = {
    "balanced": Aim(loss=0.5, query_s=1.0, index_s=0.35, candidate_s=0.0045),
    "fast": Aim(loss=1.5, query_s=0.35, index_s=0.2),
}  # for the best `AIMED_AT` reranked
AIMED_AT = 100
ABOUT = 1.05  # times within this factor count as equal, because timing is noisy
ABOUT_POINTS = 0.5  # points of mAP within which accuracies count as equal, because queries are few
SHARE = 1 / 3  # of the seconds of `balanced`, for `fast` if its aims cannot be met
FINE_ALONE = (None, 50, 30, 20, 10, 0)  # otherwise as published
STOPPED = "Pairs scored in full until no other could come among the best k, of so many at most, published else"
COSTS = ("lost, M", "s a query", "ms a candidate", "s indexed", "kB an image")

Labelled = dict[str, Costed]


@dataclass(frozen=True)
class FrontierReport:
    """A run with every point of each data set; presets are chosen on the first data set.

    Attributes:
        judged: head of each run of `judge`.
        note: other load on the machine while times were measured.
        stopped: result of `stopping`, by data set.
    """

    command: str
    date: str
    machine: Machine
    judged: list[dict[str, Any]]
    note: str
    times: Times
    datasets: dict[str, list[Costed]]
    stopped: dict[str, Counts]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "command": self.command,
            "date": self.date,
            "machine": self.machine,
            "judged": self.judged,
            "note": self.note,
            "seconds": {" ".join(map(str, stage)): figures for stage, figures in self.times.seconds.items()},
            "datasets": {
                dataset: {title: labelled_json(points) for title, points in parts(found).items()}
                for dataset, found in self.datasets.items()
            },
            "pairs in full": self.stopped,
        }

    def markdown(self) -> str:
        lines = [commands.head_line(vars(self)), ""]
        lines += ["What points are worth:", "", *(f"- {commands.head_line(head)}" for head in self.judged), ""]
        lines += [self.note, ""]
        for dataset, found in self.datasets.items():
            lines += [f"## {dataset}", ""]
            for title, points in parts(found).items():
                lines += [f"{title}:", "", tables.markdown(table(points), text_columns=2)]
            lines += [f"{STOPPED}:", "", tables.markdown(stopping_table(self.stopped[dataset]), text_columns=1)]
        return "\n".join(lines)


def parts(found: Sequence[Costed]) -> dict[str, Labelled]:
    """Group the points of a data set that are worth reporting, by title."""
    return {
        "Presets": presets(found),
        "What the rule chooses on this data set": chosen(found),
        "Nothing is cheaper a query and better": numbered(pareto(found, lambda c: c.query_s)),
        "Nothing takes fewer bytes an image and is better": numbered(pareto(found, lambda c: c.image_bytes)),
        "Few pairs in full, all else as published": numbered(few_in_full(found)),
    }


def presets(found: Sequence[Costed]) -> Labelled:
    """Return the points of the presets that the data set has."""
    by_point, largest_px = {c.point: c for c in found}, side_of(found)
    named = ((label, by_point.get(at(preset, largest_px))) for label, preset in PRESETS.items())
    return {label: c for label, c in named if c}


def chosen(found: Iterable[Costed]) -> Labelled:
    """Choose for each preset the point with the fastest search that meets its aim.

    If none does, `balanced` is the fastest that is accurate enough, and `fast` the most accurate within a third of its
    time. Among about equal points, the smallest is chosen. Only CVNet's descriptor is considered, because a bundle
    determines the descriptor, not a preset.
    """
    points = [c for c in found if c.point.descriptor == "cvnet" and c.point.shortlist == AIMED_AT]
    met = {preset: list(filter(aim.is_met, points)) for preset, aim in AIMS.items()}
    balanced = quickest(met["balanced"] or list(filter(AIMS["balanced"].is_accurate, points)))
    within = [c for c in points if c.query_s <= SHARE * balanced.query_s] or [balanced]
    return {"balanced": balanced, "fast": quickest(met["fast"]) if met["fast"] else most_accurate(within)}


def quickest(points: Sequence[Costed]) -> Costed:
    """Return the smallest of the points about as fast as the fastest."""
    longest_s = ABOUT * min(c.query_s for c in points)
    return smallest(c for c in points if c.query_s <= longest_s)


def most_accurate(points: Sequence[Costed]) -> Costed:
    """Return the smallest of the points about as accurate as the most accurate."""
    least = max(c.score for c in points) - ABOUT_POINTS
    return smallest(c for c in points if c.score >= least)


def smallest(points: Iterable[Costed]) -> Costed:
    return min(points, key=lambda c: (c.image_bytes, c.query_s))


def few_in_full(found: Sequence[Costed]) -> list[Costed]:
    by_point, largest_px = {c.point: c for c in found}, side_of(found)
    points = (at(Preset(rerank_full=fine), largest_px) for fine in FINE_ALONE)
    return [by_point[point] for point in points if point in by_point]


def side_of(found: Iterable[Costed]) -> int:
    """Return the largest size limit, at which the data set's images keep their size."""
    return max(c.point.max_side_px for c in found)


def at(preset: Preset, largest_px: int) -> Point:
    """Return the grid point of a preset; a limit beyond the data set's images is lowered to the largest in the grid."""
    side = min(preset.max_side_px or largest_px, largest_px)
    index = "cvnet", preset.scales, side, preset.precision, preset.maps
    return Point(*index, preset.method, preset.rerank, preset.rerank_full)


def numbered(points: Iterable[Costed]) -> Labelled:
    return {str(number): c for number, c in enumerate(points, 1)}


def table(points: Labelled) -> Table:
    columns = ("", "point", *(f"mAP {setup}" for setup in SETUPS), *COSTS)
    return Table("", columns, tuple((label, *cells(c)) for label, c in points.items()))


def stopping_table(counts: Counts) -> Table:
    rows = tuple((str(k), *(f"{mean:.1f}" for mean in means.values())) for k, means in counts.items())
    return Table("", ("k", *(str(most) for most in next(iter(counts.values())))), rows)


def cells(c: Costed) -> tuple[str, ...]:
    lost = f"{c.loss[0]:+.2f} ± {c.loss[1]:.2f}"
    seconds = f"{c.query_s:.3f}", f"{1000 * c.candidate_s:.2f}", f"{c.index_s:.3f}"
    kilobytes = f"{c.image_bytes / 1000:,.0f}"
    return (name(c.point), *(f"{c.means[setup]:.2f}" for setup in SETUPS), lost, *seconds, kilobytes)


def labelled_json(points: Labelled) -> list[dict[str, Any]]:
    return [{"label": label, **asdict(c)} for label, c in points.items()]


def from_json(rows: Iterable[dict[str, Any]]) -> Labelled:
    """Read the output of `labelled_json`."""
    found = {}
    for row in map(dict, rows):
        label, point, (lost, error) = row.pop("label"), row.pop("point"), row.pop("loss")
        found[label] = Costed(Point(**point | {"scales": tuple(point["scales"])}), loss=(lost, error), **row)
    return found
