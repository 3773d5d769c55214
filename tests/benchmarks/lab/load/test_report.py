"""A load run is judged by what came of its requests, and by its memory once that has settled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.lab.load.client import LOST, Answer
from benchmarks.lab.load.phases import Cancelled, Sample
from benchmarks.lab.load.report import LoadReport, Phase
from cvnet_engine.engine import machine

GOOD = [Answer("search", 200, seconds) for seconds in (0.1, 0.2, 0.3)]
REFUSED = Answer("search", 503, 0.0, 5.0)
MIB = 2**20


def report(**changes) -> LoadReport:
    samples = [Sample(2.0 * n, (300 if n < 2 else 500 + n // 10) * MIB, 58 + n) for n in range(20)]
    whole = LoadReport(
        command="python -m benchmarks.lab.load",
        date="2026-11-24",
        machine=machine.describe(),
        model="a model",
        note="a note",
        constant=Phase.of("1 a second", 10, GOOD),
        busy=Phase.of("8 clients", 10, GOOD),
        overload=Phase.of("64 clients", 10, [*GOOD, REFUSED]),
        queue=32,
        cancelled=Cancelled(16, 3200, 64, 0.1),
        memory=samples,
        index_runs=3,
        exceptions=0,
    )
    return replace(whole, **changes)


def failing(**changes) -> list[str]:
    return [claim for claim, held in report(**changes).must_hold.items() if not held]


def test_a_good_run_holds_and_is_written():
    assert failing() == []
    written = report().markdown()
    assert "| 64 clients | 10 | 3 | 0.3 | 1 | 0 | 0 | 0 |" in written
    assert "| search | 200 | 298 | 200 | 298 | 200 | 298 |" in written
    assert "no**" not in written
    assert report().document()["must_hold"] == report().must_hold


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"busy": Phase.of("", 1, [*GOOD, Answer("search", LOST, 1.0)])}, "nothing was lost"),
        ({"busy": Phase.of("", 1, [*GOOD, Answer("search", 500, 1.0)])}, "no 500"),
        ({"overload": Phase.of("", 1, [REFUSED, Answer("search", 503, 1.0)])}, "no 500"),
        ({"constant": Phase.of("", 1, [*GOOD, REFUSED])}, "within capacity"),
        ({"overload": Phase.of("", 1, GOOD)}, "beyond capacity"),
        ({"cancelled": Cancelled(16, 3200, 3000, 0.1)}, "took their work"),
        ({"exceptions": 1}, "no exception"),
        ({"memory": [Sample(n, (500 + 2 * n) * MIB, 58 + n) for n in range(20)]}, "memory"),
        ({"memory": [Sample(n, 500 * MIB, 58) for n in range(20)]}, "opened again"),
    ],
)
def test_what_must_not_be_is_seen(changes, claim):
    (broken,) = failing(**changes)
    assert claim in broken
