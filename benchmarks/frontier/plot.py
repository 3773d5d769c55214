"""The figure of the frontier: accuracy against seconds a query, and against bytes an image."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.frontier.grid import SIDES_PX
from benchmarks.frontier.points import Costed, pareto
from benchmarks.latency.plots import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INCHES = (15.0, 7.0)
SIDE_COLOURS = dict(zip(SIDES_PX, COLOURS, strict=False))
PRESET_COLOUR = "#b2182b"
MARKERS = {"fp32": "o", "bf16": "s", "int8": "^"}
Cost = Callable[[Costed], float]


def draw(title: str, points: Sequence[Costed], presets: Mapping[str, Costed], suffix: str) -> bytes:
    """The figure as the content of a file of this suffix.

    Args:
        presets: by name; they are marked.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    matplotlib.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure = Figure(figsize=INCHES, layout="constrained")
    seconds, memory = figure.subplots(1, 2, sharey=True)
    paint(seconds, points, presets, lambda c: c.query_s)
    paint(memory, points, presets, lambda c: c.image_bytes / 1000)
    seconds.set(xlabel="seconds a query", ylabel="Medium mAP, reranked, %")
    memory.set(xlabel="kB an image in the gallery")
    sides = [Line2D([], [], color=colour, marker="o", ls="", label=f"{px} px") for px, colour in SIDE_COLOURS.items()]
    kinds = [Line2D([], [], color="grey", marker=m, ls="", label=precision) for precision, m in MARKERS.items()]
    line = Line2D([], [], color="black", lw=1, label="no other point is cheaper and better")
    figure.legend(handles=[*sides, *kinds, line], loc="outside lower center", ncols=len(sides) + len(kinds) + 1)
    figure.suptitle(title, fontsize=14)
    stream = io.BytesIO()
    figure.savefig(stream, format=suffix[1:], dpi=150)
    return stream.getvalue()


def paint(panel: Axes, points: Sequence[Costed], presets: Mapping[str, Costed], cost: Cost) -> None:
    """Every point pale, the frontier joined and numbered as in its table, presets named."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for side, colour in SIDE_COLOURS.items():
        for precision, marker in MARKERS.items():
            own = [c for c in points if (c.point.max_side_px, c.point.precision) == (side, precision)]
            xs, ys = [cost(c) for c in own], [c.score for c in own]
            panel.scatter(xs, ys, s=8, c=colour, marker=marker, alpha=0.25, linewidths=0, rasterized=True)
    best = pareto(points, cost)
    panel.step([cost(c) for c in best], [c.score for c in best], where="post", color="black", lw=1)
    for number, c in enumerate(best, 1):
        colour, marker = SIDE_COLOURS[c.point.max_side_px], MARKERS[c.point.precision]
        panel.plot(cost(c), c.score, marker, color=colour, markersize=8, markeredgecolor="black")
        panel.annotate(str(number), (cost(c), c.score), (0, 7), textcoords="offset points", ha="center", fontsize=9)
    for number, (name, c) in enumerate(presets.items()):
        panel.plot(cost(c), c.score, "*", color=PRESET_COLOUR, markersize=17, markeredgecolor="white", zorder=4)
        beside = 9, 14 * number - 16  # one above the other where points are close
        panel.annotate(
            name,
            (cost(c), c.score),
            beside,
            textcoords="offset points",
            color=PRESET_COLOUR,
            fontsize=12,
            weight="bold",
        )
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(True, alpha=0.25, which="both")
    panel.set_axisbelow(True)
