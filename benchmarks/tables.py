"""Tables of results, as they are to be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.contenders.contender import KEEPING, PUBLISHED

Report = dict[str, Any]  # what `bench --json` writes


@dataclass(frozen=True)
class Table:
    """Cells as they are to be read; columns of numbers are aligned right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def markdown(table: Table, text_columns: int = 2) -> str:
    """The table in Markdown, its first columns aligned left."""
    rule = ["---"] * text_columns + ["---:"] * (len(table.columns) - text_columns)
    lines = [f"| {' | '.join(cells)} |" for cells in (table.columns, tuple(rule), *table.rows)]
    return "\n".join(filter(None, [f"**{table.title}**\n" if table.title else "", *lines])) + "\n"


def document(report: Report) -> str:
    """The whole report in Markdown."""
    parts = ["# What cvnet-engine takes, stage by stage\n", *(line + "\n" for line in heading(report))]
    for table in tables(report):
        parts.append(markdown(table) + (f"\n{table.note}\n" if table.note else ""))
    parts += [f"Not timed: {name}: {reason}\n" for name, reason in report["absent"].items()]
    return "\n".join(parts)


def heading(report: Report) -> list[str]:
    """Where, when and with what: a few lines."""
    machine, limits = report["machine"], report["limits"]
    gemm = ", ".join(f"{precision} {rate:.0f}" for precision, rate in limits["gemm_gflops"].items())
    return [
        f"{machine['cpu']} ({', '.join(machine['cpu_features'])}), {report['threads']} threads; {report['date']}; "
        f"{report['model']}" + ("." if report["trained"] else ", untrained."),
        f"`{report['command']}`",
        f"The machine at its best in this run: matrix products {gemm} GFLOP/s, copying {limits['copy_gb_s']:.1f} GB/s "
        f"(read and written). At its worst moment matrix products were {limits['unsteadiness']:.0%} slower.",
    ]


def tables(report: Report) -> list[Table]:
    """Stages by image size, then growth, then agreement."""
    records = report["records"]
    stages = [r for r in records if r["series"] == "stages"]
    sizes = list(dict.fromkeys(r["size"] for r in stages if r["size"]))
    return [
        *(stage_table(f"Images of {size} px", [r for r in stages if r["size"] == size]) for size in sizes),
        search_table([r for r in stages if r["stage"] == "global search"]),
        *growth_tables(records, sizes),
        agreement_table(report["agreement"]),
    ]


STAGE_NOTE = (
    "Medians; in brackets bounds that enclose the median with 95 % confidence, less where rounds are few (6 make 97 %, "
    "3 make 75 %), and that span what three passes over all stages saw. Times as fast: than PyTorch with candidate "
    "features kept (OpenCV, NumPy where those stand beside); than published: than PyTorch extracting every candidate "
    "again; than memory kept: than PyTorch in a process that keeps freed memory for the next pair. ~: made up of "
    "PyTorch's times of an image and a pair. Share: the least time that counted operations and bytes allow on this "
    "machine, over the median; what needs fewer operations than are counted passes 100 %."
)


def stage_table(title: str, records: list[Report]) -> Table:
    """A row a stage and method."""
    columns = (
        "stage", "method", "median ms", "bounds ms", "p95 ms", "rounds", "outliers", "per second",
        "times as fast", "than published", "than memory kept", "share of limit", "peak memory MB",
    )  # fmt: skip
    order = list(dict.fromkeys((r["stage"], r["count"]) for r in records))
    ordered = sorted(records, key=lambda r: order.index((r["stage"], r["count"])))
    return Table(title, columns, tuple(map(stage_row, ordered)), STAGE_NOTE)


def stage_row(r: Report) -> tuple[str, ...]:
    return (
        " ".join(filter(None, (r["stage"], f"{r['count']:,}" if r["count"] else ""))),
        r["method"],
        ("~" if r["projected"] else "") + ms(r["median_ms"]),
        f"[{ms(r['low_ms'])}, {ms(r['high_ms'])}]",
        "" if r["projected"] else ms(r["p95_ms"]),
        "" if r["projected"] else str(r["n"]),
        "" if r["projected"] else str(len(r["outliers_ms"])),
        f"{r['per_second']:.3g}",
        speedup(r, next((b for b in r["speedups"] if b not in (PUBLISHED, KEEPING)), None)),
        speedup(r, PUBLISHED),
        speedup(r, KEEPING),
        "" if r["share"] is None else f"{r['share']:.0%}",
        "" if r["peak_bytes"] is None else f"{r['peak_bytes'] / 1e6:.0f}",
    )


def speedup(r: Report, baseline: str | None) -> str:
    if baseline not in r["speedups"]:
        return ""
    median, low, high = map(times, r["speedups"][baseline])
    return f"{median} [{low}, {high}]"


def search_table(records: list[Report]) -> Table:
    """Global search by the number of descriptors."""
    columns = ("descriptors", "method", "median ms", "bounds ms", "p95 ms", "rounds", "queries/s", "share of limit")
    rows = tuple(
        (
            f"{r['count']:,}",
            r["method"],
            ms(r["median_ms"]),
            f"[{ms(r['low_ms'])}, {ms(r['high_ms'])}]",
            ms(r["p95_ms"]),
            str(r["n"]),
            f"{r['per_second']:.3g}",
            f"{r['share']:.0%}",
        )
        for r in records
    )
    return Table("Global search", columns, rows, "NumPy: one float32 product and a sort, as published.")


def growth_tables(records: list[Report], sizes: list[str]) -> list[Table]:
    """How time grows with the shortlist, the image and the threads."""
    found = []
    for title, label, chosen, value in (
        ("Growth with the shortlist", "candidates", [r for r in records if r["stage"] == "rerank"], "count"),
        ("Growth with the image", "pixels", [r for r in records if r["series"] == "size"], "size"),
        ("Growth with threads", "threads", [r for r in records if r["series"] == "threads"], "threads"),
    ):
        chosen = [r for r in chosen if r["size"] == sizes[-1]] if value == "count" else chosen
        if chosen:
            found.append(growth_table(title, label, chosen, value))
    return found


def growth_table(title: str, label: str, records: list[Report], value: str) -> Table:
    """A row a stage and value, a column a method: median ms."""
    methods = list(dict.fromkeys(r["method"] for r in records))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for r in records:
        cells.setdefault((r["stage"], str(r[value])), {})[r["method"]] = ms(r["median_ms"])
    rows = tuple((*key, *(row.get(method, "") for method in methods)) for key, row in sorted_cells(cells, records))
    return Table(f"{title}, median ms", ("stage", label, *methods), rows)


def sorted_cells(
    cells: dict[tuple[str, str], dict[str, str]], records: list[Report]
) -> list[tuple[tuple[str, str], dict[str, str]]]:
    """Stage by stage, in the order in which they were measured."""
    stages = list(dict.fromkeys(r["stage"] for r in records))
    return sorted(cells.items(), key=lambda item: stages.index(item[0][0]))


def agreement_table(agreement: dict[str, dict[str, Report]]) -> Table:
    """How far each method is from PyTorch."""
    rows = tuple(
        (size, name, f"{distance['score']:.1e}", f"{distance['descriptor']:.1e}")
        for size, by_name in agreement.items()
        for name, distance in by_name.items()
    )
    columns = ("size", "method", "pair score", "descriptor")
    return Table("Largest differences from PyTorch, before anything was timed", columns, rows)


def ms(value: float) -> str:
    """Milliseconds to about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(value: float) -> str:
    """A ratio to about two or three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
