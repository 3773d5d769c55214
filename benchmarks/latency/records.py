"""What a run of `bench` measured, one record a stage, image size and method."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from benchmarks.contenders.contender import Contender
from benchmarks.latency.costs import Cost
from benchmarks.latency.limits import Ceiling
from benchmarks.latency.stages import Stage
from benchmarks.latency.timing import Interval, ratio

Key = tuple[str, str, str, str, int | None, int]


@dataclass(frozen=True)
class Record:
    """One method at one stage.

    Attributes:
        series: `stages`, or what the record shows the growth of: `size` or `threads`.
        size: of the images, WIDTHxHEIGHT px; empty where there are none.
        count: shortlist length or images in the gallery, None where the stage has neither.
        unit: what takes `time`, in seconds.
        cost: of one unit, None where it is not counted.
        projected: `time` is made up of other stages' times, not measured.
        speedups: baseline -> how many times as fast, the main baseline first.
        peak_bytes: growth of peak memory over the loaded model, None where it was not looked at.
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
    time: Interval
    cost: Cost
    projected: bool = False
    speedups: dict[str, Interval] = field(default_factory=dict)
    peak_bytes: int | None = None

    @property
    def key(self) -> Key:
        """What identifies a record in a run."""
        return self.series, self.stage, self.size, self.method, self.count, self.threads

    def to_json(self, ceiling: Ceiling) -> dict[str, Any]:
        """Plain values, with the share of the machine's limit; times in ms."""
        ms = self.time.scaled(1e3)
        floor = ceiling.floor_seconds(self.cost, self.precision)
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
            "median_ms": ms.median,
            "low_ms": ms.low,
            "high_ms": ms.high,
            "confidence": ms.confidence,
            "p95_ms": ms.p95,
            "n": len(ms.samples),
            "samples_ms": list(ms.samples),
            "outliers_ms": list(ms.outliers),
            "projected": self.projected,
            "per_second": 1 / self.time.median,
            **asdict(self.cost),
            "floor_ms": None if floor is None else 1e3 * floor,
            "share": None if floor is None else floor / self.time.median,
            "peak_bytes": self.peak_bytes,
            "baseline": next(iter(self.speedups), None),
            "speedup": next((s.median for s in self.speedups.values()), None),
            "speedups": {name: [s.median, s.low, s.high] for name, s in self.speedups.items()},
        }


def records_of(
    stage: Stage, times: dict[str, Interval], contenders: dict[str, Contender], series: str, size: str, threads: int
) -> list[Record]:
    """A record a method; methods that are no contender run on the processor in float32 by themselves."""
    found = []
    for method, interval in times.items():
        name = method if method in contenders else next((c for c in contenders if method.startswith(c)), None)
        backend, precision = (contenders[name].backend, contenders[name].precision) if name else (method, "fp32")
        time = interval.scaled(1 / stage.items)
        speedups = {b: ratio(times[b], interval) for b in stage.baselines if b in times and b != method}
        what = (series, stage.name, size, stage.count, threads, method, backend, precision, stage.unit)
        found.append(Record(*what, time, stage.cost, speedups=speedups))
    return found


def against(record: Record, baseline: Record) -> Record:
    """The record with its speed-up over one that took no turns with it: bounds as wide as both intervals allow."""
    ours, theirs = record.time, baseline.time
    speedup = Interval(
        (),
        theirs.median / ours.median,
        theirs.low / ours.high,
        theirs.high / ours.low,
        max(0.0, theirs.confidence + ours.confidence - 1),
    )
    return replace(record, speedups=record.speedups | {baseline.method: speedup})
