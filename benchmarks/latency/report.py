"""Report of a `bench` run: a record per stage, image size and method, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from cvnet_engine.benchmarks.latency.costs import Cost
from cvnet_engine.benchmarks.latency.limits import Ceiling
from cvnet_engine.benchmarks.latency.stages import Stage
from cvnet_engine.benchmarks.latency.timing import Interval, ratio
from cvnet_engine.benchmarks.methods.comparison import Difference
from cvnet_engine.benchmarks.methods.method import Method
from cvnet_engine.benchmarks.runs import Circumstances
from cvnet_engine.engine.errors import DatasetError
from cvnet_engine.engine.machine import Machine

Key = tuple[str, str, str, str, int | None, int]
PLAIN = ("series", "stage", "size", "count", "threads", "method", "backend", "precision", "unit")  # JSON as they are


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
            **{name: getattr(self, name) for name in PLAIN},
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
            **{name: r[name] for name in (*PLAIN, "projected", "floor_ms", "peak_bytes")},
            ms=Interval(tuple(map(float, r["samples_ms"])), *bounds),
            cost=Cost(r["flop"], r["bytes"]),
            speedups={name: Speedup(*map(float, values)) for name, values in r["speedups"].items()},
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


@dataclass(frozen=True)
class Report(Circumstances):
    """Circumstances and measurements of a run.

    Attributes:
        agreement: image size -> method -> differences from PyTorch.
        absent: what was not timed -> reason.
    """

    limits: Ceiling
    agreement: dict[str, dict[str, Difference]]
    absent: dict[str, str]
    records: tuple[Record, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            **vars(self),
            "limits": self.limits.to_json(),
            "agreement": {
                size: {name: asdict(a) for name, a in found.items()} for size, found in self.agreement.items()
            },
            "records": [record.to_json() for record in self.records],
        }

    @classmethod
    def from_json(cls, file: Path) -> Report:
        """Read a file written by `bench --json`.

        Raises:
            DatasetError: the file is missing or has other content.
        """
        try:
            return cls._of(json.loads(file.read_text()))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DatasetError(f"{file}: not readable ({error}); expected what 'bench --json' wrote") from error

    @classmethod
    def _of(cls, content: dict[str, Any]) -> Report:
        missing = Machine.__required_keys__ - content["machine"].keys()
        if missing:
            raise ValueError(f"machine without {', '.join(sorted(missing))}")
        typed = {
            "limits": Ceiling.from_json(content["limits"]),
            "agreement": {
                size: {name: Difference(**a) for name, a in found.items()}
                for size, found in content["agreement"].items()
            },
            "records": tuple(map(Record.from_json, content["records"])),
        }
        return cls(**content | typed)
