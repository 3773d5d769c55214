"""Figure of a `bench` report: time per stage, share of the machine's limit, and growth."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from cvnet_engine.benchmarks.latency.report import Record, Report
from cvnet_engine.benchmarks.methods.method import COMPILED, KEEPING, PUBLISHED, REFERENCE
from cvnet_engine.engine.errors import BackendError, install_hint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREYS = {PUBLISHED: "#2b2b2b", REFERENCE: "#6b6b6b", COMPILED: "#949494", KEEPING: "#bdbdbd"}
COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),  # Okabe and Ito, for colour-blind readers
    *("#7b4fa0", "#8c510a", "#96a800", "#b2182b"),
)
SUFFIXES = (".png", ".svg", ".pdf")
INCHES = (15.0, 17.0)
COMPUTE = ("descriptor ×0.7071", "features ×1", "descriptor ×1.4142", "extract, all scales", "pair score")


def require_drawable(file: Path) -> None:
    """Check that a figure can be drawn, before the benchmark runs.

    Raises:
        BackendError: matplotlib is not installed, or the suffix is not supported.
    """
    if file.suffix not in SUFFIXES:
        raise BackendError(f"--plot {file}: expected a file that ends in {', '.join(SUFFIXES)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise BackendError(f"--plot needs matplotlib ({error}): {install_hint('bench')}") from error


def draw(report: Report, file: Path) -> bytes:
    """Return the figure as the content of a file with this suffix."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure = Figure(figsize=INCHES, layout="constrained")
    panels = figure.subplots(3, 2)
    add_legend(figure, report)
    for panel, paint in zip(panels.flat, PANELS, strict=True):
        paint(panel, report)
        panel.grid(True, alpha=0.25, which="both")
        panel.set_axisbelow(True)
    machine = report.machine
    title = f"{report.model} on {machine['cpu']}, {report.threads} threads, {report.date}"
    figure.suptitle(title, fontsize=14)
    stream = io.BytesIO()
    figure.savefig(stream, format=file.suffix[1:], dpi=120)
    return stream.getvalue()


def add_legend(figure: Figure, report: Report) -> None:
    """Add one legend of the methods for all panels."""
    from matplotlib.patches import Patch

    patches = [Patch(color=colour, label=method) for method, colour in colours(report).items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches))


def colours(report: Report) -> dict[str, str]:
    """Return a colour per method, the same in every panel: greys for PyTorch, which comes first."""
    methods = dict.fromkeys(r.method for r in report.records)
    others = zip((name for name in methods if name not in GREYS), cycle(COLOURS), strict=False)
    return {name: grey for name, grey in GREYS.items() if name in methods} | dict(others)


def stages_at_largest(report: Report, projected: bool) -> list[Record]:
    """Return the stage records of the last image size."""
    records = [r for r in report.records if r.series == "stages" and r.size]
    last = records[-1].size
    return [r for r in records if r.size == last and (projected or not r.projected)]


def stage_times(panel: Axes, report: Report) -> None:
    """Plot the median of each stage and method, with bounds and outliers."""
    records = stages_at_largest(report, projected=True)
    bars(panel, records, lambda r: r.ms.median, report)
    panel.set_xscale("log")
    panel.set_xlabel("median ms (bounds: 95 % where rounds allow; circles: outliers; hatched: made up)")
    panel.set_title(f"Stages, images of {records[0].size} px")


def limit_shares(panel: Axes, report: Report) -> None:
    """Plot the share of the machine's limit."""
    records = [r for r in stages_at_largest(report, projected=False) if r.stage in COMPUTE and r.share]
    bars(panel, records, lambda r: 100 * (r.share or 0), report, spread=False)
    panel.set_xlabel("% of what counted operations allow at the measured matrix product rate")
    panel.set_title(f"Share of the limit, images of {records[0].size} px")


def bars(
    panel: Axes, records: list[Record], value: Callable[[Record], float], report: Report, spread: bool = True
) -> None:
    """Draw horizontal bars grouped by label, in the order of the records, with PyTorch first in each group."""
    colour = colours(report)
    methods = list(colour)
    groups: dict[str, list[Record]] = {}
    for r in records:
        groups.setdefault(r.label, []).append(r)
    for row, group in enumerate(groups.values()):
        height = 0.8 / len(group)
        for place, r in enumerate(sorted(group, key=lambda r: methods.index(r.method))):
            y = row - 0.4 + (place + 0.5) * height
            hatch = "///" if r.projected else None
            panel.barh(y, value(r), 0.9 * height, color=colour[r.method], hatch=hatch, edgecolor="white")
            if spread:
                panel.plot([r.ms.low, r.ms.high], [y, y], color="black", linewidth=1)
                panel.plot(r.ms.outliers, [y] * len(r.ms.outliers), "o", color="black", markersize=2, fillstyle="none")
    panel.set_yticks(range(len(groups)), list(groups))
    panel.invert_yaxis()


def growth_with_image(panel: Axes, report: Report) -> None:
    """Plot extraction and pair score against the number of pixels."""
    records = [r for r in report.records if r.series == "size"]
    lines(panel, records, lambda r: pixels(r.size) / 1e6, report)
    panel.set(
        xscale="log", yscale="log", xlabel="image size, megapixels", ylabel="median ms", title="Growth with the image"
    )
    mark_values(panel, {pixels(r.size) / 1e6 for r in records})


def growth_with_shortlist(panel: Axes, report: Report) -> None:
    """Plot reranking against the shortlist length."""
    records = [r for r in stages_at_largest(report, projected=True) if r.stage == "rerank"]
    lines(panel, records, lambda r: r.count or 0, report)
    panel.set(xscale="log", yscale="log", xlabel="candidates reranked", ylabel="median ms")
    mark_values(panel, {r.count or 0 for r in records})
    panel.set_title(f"Growth with the shortlist, images of {records[0].size} px" if records else "")


def growth_with_gallery(panel: Axes, report: Report) -> None:
    """Plot global search against the number of descriptors."""
    records = [r for r in report.records if r.stage == "global search"]
    lines(panel, records, lambda r: r.count or 0, report)
    panel.set(xscale="log", yscale="log", xlabel="images in the gallery", ylabel="median ms", title="Global search")
    mark_values(panel, {r.count or 0 for r in records})


def growth_with_threads(panel: Axes, report: Report) -> None:
    """Plot the speed of extraction and pair score relative to one thread."""
    records = [r for r in report.records if r.series == "threads"]
    lines(panel, [relative_to_one(r, records) for r in records], lambda r: r.threads, report)
    counts = sorted({r.threads for r in records})
    panel.plot(counts, counts, color="black", linewidth=0.8, linestyle=":", label="as many times as threads")
    panel.set_xticks(counts)
    panel.set(xlabel="threads", ylabel="times as fast as with one thread")
    panel.set_title(f"Growth with threads, images of {records[0].size} px" if records else "")
    panel.legend(fontsize=9)


def relative_to_one(record: Record, records: list[Record]) -> Record:
    """Return the record with its times replaced by the speed relative to one thread."""
    one = next(r for r in records if r.threads == 1 and (r.stage, r.method) == (record.stage, record.method)).ms.median
    ms = record.ms
    return replace(record, ms=replace(ms, median=one / ms.median, low=one / ms.high, high=one / ms.low))


def lines(panel: Axes, records: list[Record], x: Callable[[Record], float], report: Report) -> None:
    """Draw a line per stage and method, with its bounds."""
    colour = colours(report)
    stages = list(dict.fromkeys(r.stage for r in records))
    for key in dict.fromkeys((r.stage, r.method) for r in records):
        stage, method = key
        own = sorted((r for r in records if (r.stage, r.method) == key), key=x)
        xs = [x(r) for r in own]
        name = f"{method}, {stage}" if len(stages) > 1 else method
        style = ("-", "--")[stages.index(stage) % 2]
        panel.plot(xs, [r.ms.median for r in own], style, marker="o", color=colour[method], label=name)
        panel.fill_between(xs, [r.ms.low for r in own], [r.ms.high for r in own], color=colour[method], alpha=0.15)
    panel.legend(fontsize=9)


def mark_values(panel: Axes, values: Iterable[float]) -> None:
    """Place ticks at the measured values, in plain numbers."""
    ticks = sorted(values)
    panel.set_xticks(ticks, [f"{v:,}" if isinstance(v, int) else f"{v:.2f}" for v in ticks])
    panel.set_xticks([], minor=True)


def pixels(size: str) -> int:
    width, height = map(int, size.split("x"))
    return width * height


PANELS = (stage_times, limit_shares, growth_with_image, growth_with_shortlist, growth_with_gallery, growth_with_threads)
