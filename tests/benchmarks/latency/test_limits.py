"""Shares of the machine's limits, from the cost of a stage."""

import pytest

from cvnet_engine.benchmarks.latency import limits
from cvnet_engine.benchmarks.latency.costs import Cost
from cvnet_engine.benchmarks.latency.limits import Ceiling, Limits, measure


@pytest.fixture
def ceiling():
    return Ceiling([Limits({"fp32": 100.0, "int8": 400.0}, 10.0), Limits({"fp32": 80.0, "int8": 500.0}, 20.0)])


def test_the_best_moment_is_the_limit(ceiling):
    assert ceiling.best == Limits({"fp32": 100.0, "int8": 500.0}, 20.0)
    assert ceiling.unsteadiness == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("cost", "precision", "ms"),
    [
        (Cost(flop=50e9), "fp32", 500.0),
        (Cost(flop=50e9), "int8", 100.0),
        (Cost(flop=50e9, bytes=40e9), "int8", 2000.0),
        (Cost(bytes=10e9), "fp16", 500.0),
        (Cost(flop=1.0), "fp16", None),
    ],
)
def test_arithmetic_or_memory_whichever_is_slower(ceiling, cost, precision, ms):
    assert ceiling.floor_ms(cost, precision) == ms


def test_the_machine_has_limits(monkeypatch):
    monkeypatch.setattr(limits, "SIDE", 64)
    monkeypatch.setattr(limits, "COPY_VALUES", 4096)
    found = measure(threads=1)
    assert set(found.gemm_gflops) == {"fp32", "bf16", "int8"}
    assert all(rate > 0 for rate in (*found.gemm_gflops.values(), found.copy_gb_s))
