"""Records of `bench`: one per stage, image size and method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from cvnet_engine.benchmarks.latency.costs import Cost
from cvnet_engine.benchmarks.latency.stages import Stage
from cvnet_engine.benchmarks.latency.timing import Interval, ratio
from cvnet_engine.benchmarks.methods.method import Method

Key = tuple[str, str, str, str, int | None, int]


class Speedup(NamedTuple):
    """Speed relative to a baseline, with bounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Record:
    """Measurement of one method at one stage.

    Attributes:
        series: `stages`, or the variable of a growth series: `size` or `threads`.
        size: image size, WIDTHxHEIGHT px; empty if the stage has no image.
        count: shortlist length or number of images in the gallery; None if the stage has neither.
        unit: unit of work that takes `ms`.
        cost: cost of one unit.
        projected: `ms` was estimated from other stages, not measured.
        speedups: speed-up by baseline, the main baseline first.
        floor_ms: least time that the machine's limits allow; None if they are not known.
        peak_bytes: growth of peak memory over the loaded model; None if not measured.
    """

    series: str
    stage: str
    size: str
    count: int | None
    threads: int
    method: str
    backend: str
    precision: str
    unit: str
    ms: Interval
    cost: Cost
    projected: bool = False
    speedups: dict[str, Speedup] = field(default_factory=dict)
    floor_ms: float | None = None
    peak_bytes: int | None = None

    @property
    def key(self) -> Key:
        """Identifier of the record within a run."""
        return self.series, self.stage, self.size, self.method, self.count, self.threads

    @property
    def label(self) -> str:
        """The stage name, with the count if there is one."""
        return f"{self.stage} {self.count:,}" if self.count else self.stage

    @property
    def per_second(self) -> float:
        return 1e3 / self.ms.median

    @property
    def share(self) -> float | None:
        """Fraction of the machine's limit."""
        return None if self.floor_ms is None else self.floor_ms / self.ms.median

    def to_json(self) -> dict[str, Any]:
        """Return plain values, including derived figures."""
        return {
            "series": self.series,
            "stage": self.stage,
            "size": self.size,
            "count": self.count,
            "threads": self.threads,
            "method": self.method,
            "backend": self.backend,
            "precision": self.precision,
            "unit": self.unit,
            "median_ms": self.ms.median,
            "low_ms": self.ms.low,
            "high_ms": self.ms.high,
            "confidence": self.ms.confidence,
            "p95_ms": self.ms.p95,
            "n": len(self.ms.samples),
            "samples_ms": list(self.ms.samples),
            "outliers_ms": list(self.ms.outliers),
            "projected": self.projected,
            "per_second": self.per_second,
            **asdict(self.cost),
            "floor_ms": self.floor_ms,
            "share": self.share,
            "peak_bytes": self.peak_bytes,
            "baseline": next(iter(self.speedups), None),
            "speedup": next((s.median for s in self.speedups.values()), None),
            "speedups": {name: list(speedup) for name, speedup in self.speedups.items()},
        }

    @classmethod
    def from_json(cls, r: Mapping[str, Any]) -> Record:
        """Read the output of `to_json`; derived figures are ignored."""
        bounds = (float(r[name]) for name in ("median_ms", "low_ms", "high_ms", "confidence"))
        return cls(
            series=r["series"],
            stage=r["stage"],
            size=r["size"],
            count=r["count"],
            threads=r["threads"],
            method=r["method"],
            backend=r["backend"],
            precision=r["precision"],
            unit=r["unit"],
            ms=Interval(tuple(map(float, r["samples_ms"])), *bounds),
            cost=Cost(r["flop"], r["bytes"]),
            projected=r["projected"],
            speedups={name: Speedup(*map(float, values)) for name, values in r["speedups"].items()},
            floor_ms=r["floor_ms"],
            peak_bytes=r["peak_bytes"],
        )


def records_of(
    stage: Stage, times: dict[str, Interval], methods: dict[str, Method], series: str, size: str, threads: int
) -> list[Record]:
    """Build a record per method from times in seconds; a name that is not in `methods` counts as float32."""
    found = []
    for method, interval in times.items():
        name = method if method in methods else next((c for c in methods if method.startswith(c)), None)
        backend, precision = (methods[name].backend, methods[name].precision) if name else (method, "fp32")
        ms = interval.scaled(1e3 / stage.items)
        ratios = {b: ratio(times[b], interval) for b in stage.baselines if b in times and b != method}
        speedups = {b: Speedup(r.median, r.low, r.high) for b, r in ratios.items()}
        what = (series, stage.name, size, stage.count, threads, method, backend, precision, stage.unit)
        found.append(Record(*what, ms, stage.cost, speedups=speedups))
    return found


def against(record: Record, baseline: Record) -> Record:
    """Return the record with its speed-up over a baseline that was not timed in turn with it; bounds are the widest."""
    ours, theirs = record.ms, baseline.ms
    speedup = Speedup(theirs.median / ours.median, theirs.low / ours.high, theirs.high / ours.low)
    return replace(record, speedups=record.speedups | {baseline.method: speedup})
