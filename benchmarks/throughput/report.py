"""Report of `bench --throughput`: JSON and tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cvnet_engine.benchmarks.latency.report import Speedup
from cvnet_engine.benchmarks.latency.timing import Interval
from cvnet_engine.benchmarks.runs import Circumstances
from cvnet_engine.benchmarks.tables import Table, markdown, ms, times
from cvnet_engine.benchmarks.throughput.worker_pool import Spread

INDEXING, SEARCH = "indexing", "search"
NOTE = (
    "Each process has that many streams, each stream its own engines with that many threads. Per second: images or "
    "queries; in brackets the slowest and the fastest round. p50 and p99: from when a file's turn comes until its "
    "features are stored, or its list is reranked. Times as fast: than PyTorch in the same rounds, where a data loader "
    "of one process feeds the reference model, which stores nothing, keeps freed memory and has candidates' features."
)


@dataclass(frozen=True)
class Rate:
    """Measurement of one configuration at one kind of work.

    Attributes:
        work: `INDEXING` or `SEARCH`.
        per_second: images or queries per second, in each round.
        latencies_s: seconds per image or query, in all rounds.
        speedup: over PyTorch in the same rounds; None for PyTorch itself.
    """

    work: str
    method: str
    backend: str
    precision: str
    spread: Spread
    per_second: Interval
    latencies_s: tuple[float, ...]
    speedup: Speedup | None

    def percentile_ms(self, percent: float) -> float:
        return 1e3 * float(np.percentile(self.latencies_s, percent))

    def to_json(self) -> dict[str, Any]:
        rate = self.per_second
        return {
            "work": self.work,
            "method": self.method,
            "backend": self.backend,
            "precision": self.precision,
            **asdict(self.spread),
            "per_second": rate.median,
            "rounds_per_second": list(rate.samples),
            "p50_ms": self.percentile_ms(50),
            "p99_ms": self.percentile_ms(99),
            "n": len(self.latencies_s),
            "speedup": self.speedup,
        }


@dataclass(frozen=True)
class ThroughputReport(Circumstances):
    """Circumstances and measurements of a run.

    Attributes:
        load: mean load of the machine in the minute before the run.
        size: image size, WIDTHxHEIGHT px.
        shortlist: candidates reranked per query.
    """

    load: float
    size: str
    shortlist: int
    records: tuple[Rate, ...]

    @property
    def best(self) -> list[Rate]:
        """The fastest configuration of each method at each kind of work."""
        groups: dict[tuple[str, str], list[Rate]] = {}
        for record in self.records:
            groups.setdefault((record.work, record.method), []).append(record)
        return [max(group, key=lambda record: record.per_second.median) for group in groups.values()]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            **vars(self),
            "best": [{"work": r.work, "method": r.method, **asdict(r.spread)} for r in self.best],
            "records": [record.to_json() for record in self.records],
        }


def document(report: ThroughputReport) -> str:
    """Return the whole report in Markdown."""
    lines = "\n\n".join([*heading(report), *best(report)])
    return f"# What cvnet-engine gets through\n\n{lines}\n\n{markdown(table(report))}\n{NOTE}\n"


def heading(report: ThroughputReport) -> list[str]:
    """Return a few lines on the machine, date, model and command."""
    return report.stated(f", load {report.load:.1f} before")


def best(report: ThroughputReport) -> list[str]:
    """Return a line per method and kind of work."""
    return [f"{r.work}, {r.method}: fastest with {r.spread}: {r.per_second.median:.3g} a second" for r in report.best]


def table(report: ThroughputReport) -> Table:
    """Build a table with one row per record."""
    columns = (
        "work", "method", "batch", "streams", "processes", "threads each",
        "a second", "rounds", "p50 ms", "p99 ms", "n", "times as fast",
    )  # fmt: skip
    title = f"Images of {report.size} px; queries with {report.shortlist} candidates reranked"
    return Table(title, columns, tuple(map(row, report.records)), NOTE)


def row(r: Rate) -> tuple[str, ...]:
    spread, rate = r.spread, r.per_second
    return (
        r.work,
        r.method,
        *map(str, (spread.batch, spread.streams, spread.processes, spread.threads)),
        f"{rate.median:.3g}",
        f"[{min(rate.samples):.3g}, {max(rate.samples):.3g}]",
        ms(r.percentile_ms(50)),
        ms(r.percentile_ms(99)),
        str(len(r.latencies_s)),
        f"{times(r.speedup.median)} [{times(r.speedup.low)}, {times(r.speedup.high)}]" if r.speedup else "",
    )
