"""Figure of the frontier: accuracy against seconds per query, and against bytes per image."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.lab.frontier.grid import SIDES_PX
from benchmarks.lab.frontier.report import Costed, pareto
from cvnet_engine.benchmarks.latency.plots import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES = (11.0, 5.6)  # about the size at which README shows them
SIDE_COLOURS = dict(zip(SIDES_PX, COLOURS, strict=False))
PRESET_COLOUR = "#b2182b"
MARKERS = {"fp32": "o", "bf16": "s", "int8": "^"}
Cost = Callable[[Costed], float]
COSTS: dict[str, Cost] = {
    "seconds per query": lambda c: c.query_s,
    "kB per image in the gallery": lambda c: c.image_bytes / 1000,
}  # cost functions by axis label


def draw(title: str, points: Sequence[Costed], presets: Mapping[str, Costed]) -> bytes:
    """Return the figure as SVG, with a panel for each of `COSTS`.

    Args:
        presets: points to mark, by name.
    """
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure = Figure(figsize=INCHES, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    panels[0].set_ylabel("Medium mAP, %")
    for panel, (label, cost) in zip(panels, COSTS.items(), strict=True):
        panel.set_xlabel(label)
        paint(panel, points, presets, cost)
    add_legend(figure)
    figure.suptitle(title, fontsize=13)
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", dpi=150)
    return stream.getvalue()


def add_legend(figure: Figure) -> None:
    """Explain colours, markers, the line and the stars."""
    from matplotlib.lines import Line2D

    sides = [Line2D([], [], color=colour, marker="o", ls="", label=f"{px} px") for px, colour in SIDE_COLOURS.items()]
    kinds = [Line2D([], [], color="grey", marker=m, ls="", label=precision) for precision, m in MARKERS.items()]
    line = Line2D([], [], color="black", lw=1, label="Pareto frontier")
    star = Line2D([], [], color=PRESET_COLOUR, marker="*", ls="", markersize=12, label="preset")
    handles = [*sides, *kinds, star, line]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        fontsize=9.5,
        columnspacing=1,
        handletextpad=0.3,
        handlelength=1.2,
    )


def paint(panel: Axes, points: Sequence[Costed], presets: Mapping[str, Costed], cost: Cost) -> None:
    """Draw all points pale, the frontier joined by a line, and the presets with their names."""
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import LogLocator, NullFormatter

    for side, colour in SIDE_COLOURS.items():
        for precision, marker in MARKERS.items():
            own = [c for c in points if (c.point.max_side_px, c.point.precision) == (side, precision)]
            xs, ys = [cost(c) for c in own], [c.score for c in own]
            panel.scatter(xs, ys, s=8, c=colour, marker=marker, alpha=0.25, linewidths=0, rasterized=True)
    best = pareto(points, cost)
    panel.step([cost(c) for c in best], [c.score for c in best], where="post", color="black", lw=1)
    for c in best:
        colour, marker = SIDE_COLOURS[c.point.max_side_px], MARKERS[c.point.precision]
        panel.plot(cost(c), c.score, marker, color=colour, markersize=6, markeredgecolor="black", markeredgewidth=0.8)
    halo = [withStroke(linewidth=3, foreground="white")]
    for name, c in presets.items():
        panel.plot(cost(c), c.score, "*", color=PRESET_COLOUR, markersize=16, markeredgecolor="white", zorder=4)
        text = panel.annotate(name, (cost(c), c.score), (7, -15), textcoords="offset points", zorder=5)
        text.set(color=PRESET_COLOUR, weight="bold", path_effects=halo)
    panel.margins(x=0.11)  # room for the name of the rightmost preset
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(True, alpha=0.25, which="both")
    panel.set_axisbelow(True)
