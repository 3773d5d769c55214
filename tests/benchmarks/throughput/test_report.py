"""The report of a throughput run: the fastest spread, percentiles, plain values in JSON."""

from __future__ import annotations

import json

import pytest

from cvnet_engine.benchmarks.latency.report import Speedup
from cvnet_engine.benchmarks.latency.timing import Interval
from cvnet_engine.benchmarks.throughput.report import INDEXING, SEARCH, Rate, ThroughputReport, best, document, table
from cvnet_engine.benchmarks.throughput.worker_pool import Spread
from cvnet_engine.engine import machine

ONE, TWO = Spread(1, 1, 1, 2), Spread(1, 2, 1, 1)


def record(work: str, method: str, spread: Spread, rate: float, speedup: float | None = None) -> Rate:
    rates = Interval.of([rate * 0.9, rate, rate * 1.2])
    found = None if speedup is None else Speedup(speedup, speedup, speedup)
    return Rate(work, method, "openvino", "int8", spread, rates, tuple(n / 100 for n in range(1, 102)), found)


@pytest.fixture
def report() -> ThroughputReport:
    records = (
        record(INDEXING, "PyTorch", ONE, 0.5),
        record(INDEXING, "r50", ONE, 2, 4),
        record(INDEXING, "r50", TWO, 3, 6),
        record(SEARCH, "r50", ONE, 0.2, 9),
    )
    return ThroughputReport(
        "cvnet-engine bench", "2026-11-29", machine.describe(), 60.0, 2, "R50", True, 1.5, "96x64", 4, records
    )


def test_the_fastest_way_of_each_is_named(report):
    assert [(r.work, r.method, r.spread) for r in report.best] == [
        (INDEXING, "PyTorch", ONE),
        (INDEXING, "r50", TWO),
        (SEARCH, "r50", ONE),
    ]
    assert best(report)[1] == (
        "indexing, r50: fastest with batch 1, 2 streams, 1 processes, 1 threads each: 3 a second"
    )


def test_percentiles_are_of_single_images(report):
    row = report.records[1].to_json()
    assert (row["p50_ms"], row["p99_ms"], row["n"]) == (pytest.approx(510), pytest.approx(1000), 101)
    assert row["rounds_per_second"] == pytest.approx([1.8, 2, 2.4])


def test_json_is_plain(report):
    content = json.loads(json.dumps(report.to_json()))
    assert content["best"][1] == {
        "work": INDEXING, "method": "r50", "batch": 1, "streams": 2, "processes": 1, "threads": 1,
    }  # fmt: skip
    assert content["records"][0]["speedup"] is None
    assert content["records"][2]["speedup"] == [6, 6, 6]


def test_the_document_has_every_record(report):
    text = document(report)
    for row in table(report).rows:
        assert f"| {' | '.join(row)} |" in text
    assert "load 1.5 before" in text
