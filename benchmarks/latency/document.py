"""Tables of a `bench` report, its Markdown, and the changes between two runs that exceed measurement noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cvnet_engine.benchmarks.latency.report import Record, Report
from cvnet_engine.benchmarks.methods.comparison import Difference
from cvnet_engine.benchmarks.methods.method import KEEPING, PUBLISHED
from cvnet_engine.benchmarks.tables import Table, markdown, ms, times
from cvnet_engine.engine.errors import DatasetError


def document(report: Report) -> str:
    """Return the whole report in Markdown."""
    parts = ["# What cvnet-engine takes, stage by stage\n", *(line + "\n" for line in heading(report))]
    for table in tables(report):
        parts.append(markdown(table) + (f"\n{table.note}\n" if table.note else ""))
    parts += [f"Not timed: {name}: {reason}\n" for name, reason in report.absent.items()]
    return "\n".join(parts)


def heading(report: Report) -> list[str]:
    """Return a few lines on the machine, date, model, command and measured limits."""
    best = report.limits.best
    gemm = ", ".join(f"{precision} {rate:.0f}" for precision, rate in best.gemm_gflops.items())
    return [
        *report.stated(),
        f"The machine at its best in this run: matrix products {gemm} GFLOP/s, copying {best.copy_gb_s:.1f} GB/s "
        f"(read and written). At its worst moment matrix products were {report.limits.unsteadiness:.0%} slower.",
    ]


def tables(report: Report) -> list[Table]:
    """Return the tables: stages per image size, global search, growth, agreement."""
    stages = [r for r in report.records if r.series == "stages"]
    sizes = list(dict.fromkeys(r.size for r in stages if r.size))
    return [
        *(stage_table(f"Images of {size} px", [r for r in stages if r.size == size]) for size in sizes),
        search_table([r for r in stages if r.stage == "global search"]),
        *growth_tables(report.records, sizes),
        agreement_table(report.agreement),
    ]


STAGE_NOTE = (
    "Medians; in brackets bounds that enclose the median with 95 % confidence, less where rounds are few (6 make 97 %, "
    "3 make 75 %), and that span what three passes over all stages saw. Times as fast: than PyTorch with candidate "
    "features kept (OpenCV, NumPy where those stand beside); than published: than PyTorch extracting every candidate "
    "again; than memory kept: than PyTorch in a process that keeps freed memory for the next pair. ~: made up of "
    "PyTorch's times of an image and a pair. Share: the least time that counted operations and bytes allow on this "
    "machine, over the median; what needs fewer operations than are counted passes 100 %."
)


def stage_table(title: str, records: list[Record]) -> Table:
    """Build a table with one row per stage and method."""
    columns = (
        "stage", "method", "median ms", "bounds ms", "p95 ms", "rounds", "outliers", "per second",
        "times as fast", "than published", "than memory kept", "share of limit", "peak memory MB",
    )  # fmt: skip
    order = list(dict.fromkeys((r.stage, r.count) for r in records))
    ordered = sorted(records, key=lambda r: order.index((r.stage, r.count)))
    return Table(title, columns, tuple(map(stage_row, ordered)), STAGE_NOTE)


def stage_row(r: Record) -> tuple[str, ...]:
    return (
        r.label,
        r.method,
        ("~" if r.projected else "") + ms(r.ms.median),
        f"[{ms(r.ms.low)}, {ms(r.ms.high)}]",
        "" if r.projected else ms(r.ms.p95),
        "" if r.projected else str(len(r.ms.samples)),
        "" if r.projected else str(len(r.ms.outliers)),
        f"{r.per_second:.3g}",
        speedup(r, next((b for b in r.speedups if b not in (PUBLISHED, KEEPING)), None)),
        speedup(r, PUBLISHED),
        speedup(r, KEEPING),
        "" if r.share is None else f"{r.share:.0%}",
        "" if r.peak_bytes is None else f"{r.peak_bytes / 1e6:.0f}",
    )


def speedup(r: Record, baseline: str | None) -> str:
    if baseline not in r.speedups:
        return ""
    median, low, high = map(times, r.speedups[baseline])
    return f"{median} [{low}, {high}]"


def search_table(records: list[Record]) -> Table:
    """Build a table of global search by number of descriptors."""
    columns = ("descriptors", "method", "median ms", "bounds ms", "p95 ms", "rounds", "queries/s", "share of limit")
    rows = tuple(
        (
            f"{r.count:,}",
            r.method,
            ms(r.ms.median),
            f"[{ms(r.ms.low)}, {ms(r.ms.high)}]",
            ms(r.ms.p95),
            str(len(r.ms.samples)),
            f"{r.per_second:.3g}",
            f"{r.share:.0%}",
        )
        for r in records
    )
    return Table("Global search", columns, rows, "NumPy: one float32 product and a sort, as published.")


def growth_tables(records: Sequence[Record], sizes: list[str]) -> list[Table]:
    """Build the tables of time against shortlist length, image size and threads."""
    reranked = [r for r in records if r.stage == "rerank" and r.size == sizes[-1]]
    growths = (
        ("Growth with the shortlist", "candidates", [(str(r.count), r) for r in reranked]),
        ("Growth with the image", "pixels", [(r.size, r) for r in records if r.series == "size"]),
        ("Growth with threads", "threads", [(str(r.threads), r) for r in records if r.series == "threads"]),
    )
    return [growth_table(*growth) for growth in growths if growth[-1]]


def growth_table(title: str, label: str, points: list[tuple[str, Record]]) -> Table:
    """Build a table of median ms: a row per stage and value, in measured order, and a column per method."""
    methods = list(dict.fromkeys(r.method for _, r in points))
    stages = list(dict.fromkeys(r.stage for _, r in points))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for value, r in points:
        cells.setdefault((r.stage, value), {})[r.method] = ms(r.ms.median)
    keys = sorted(cells, key=lambda key: stages.index(key[0]))
    rows = tuple((*key, *(cells[key].get(method, "") for method in methods)) for key in keys)
    return Table(f"{title}, median ms", ("stage", label, *methods), rows)


def agreement_table(agreement: dict[str, dict[str, Difference]]) -> Table:
    """Build a table of the largest differences between each method and PyTorch."""
    rows = tuple(
        (size, name, f"{distance.score:.1e}", f"{distance.descriptor:.1e}")
        for size, by_name in agreement.items()
        for name, distance in by_name.items()
    )
    columns = ("size", "method", "pair score", "descriptor")
    return Table("Largest differences from PyTorch, before anything was timed", columns, rows)


@dataclass(frozen=True)
class Change:
    """A record that both runs have.

    Attributes:
        noise: variation of the machine's own speed, as a fraction.
    """

    old: Record
    new: Record
    noise: float

    @property
    def ratio(self) -> float:
        """New median over old."""
        return self.new.ms.median / self.old.ms.median

    @property
    def agrees(self) -> bool:
        """True if the two confidence intervals overlap."""
        return self.old.ms.low <= self.new.ms.high and self.new.ms.low <= self.old.ms.high

    @property
    def real(self) -> bool:
        """True if the intervals do not overlap and the change is larger than the noise."""
        return not self.agrees and max(self.ratio, 1 / self.ratio) - 1 > self.noise


def changes(old: Report, new: Report) -> list[Change]:
    """Compare every measured record that both runs have.

    Raises:
        DatasetError: the runs differ in processor, model or number of threads, so times are not comparable.
    """
    require_same("threads", old.threads, new.threads)
    require_same("model", old.model, new.model)
    require_same("processor", old.machine["cpu"], new.machine["cpu"])
    noise = max(old.limits.unsteadiness, new.limits.unsteadiness)
    before = {record.key: record for record in old.records}
    return [Change(before[r.key], r, noise) for r in new.records if not r.projected and r.key in before]


def require_same(what: str, old: object, new: object) -> None:
    if old != new:
        raise DatasetError(f"--compare: {what} {old} then, {new} now; expected a run of the same {what}")


def change_table(found: list[Change]) -> Table:
    """List the changes beyond noise, largest first, with a note that counts the records that agree."""
    real = sorted((c for c in found if c.real), key=lambda c: abs(c.ratio - 1), reverse=True)
    agreeing = sum(c.agrees for c in found)
    rows = tuple(
        (
            f"{c.new.size} {c.new.label}".strip(),
            c.new.method,
            str(c.new.threads),
            ms(c.old.ms.median),
            ms(c.new.ms.median),
            f"{abs(c.ratio - 1):.0%} {'slower' if c.ratio > 1 else 'faster'}",
        )
        for c in real
    )
    return Table(
        "Changed beyond noise",
        ("stage", "method", "threads", "old ms", "new ms", "change"),
        rows,
        f"{agreeing} of {len(found)} medians agree within their bounds; {len(real)} changed beyond the bounds and the "
        "machine's own unsteadiness.",
    )
