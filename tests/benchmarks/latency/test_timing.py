"""Times taken in turn, and bounds of a median that hold as often as they say."""

from itertools import count

import numpy as np
import pytest

from cvnet_engine.benchmarks.latency import timing
from cvnet_engine.benchmarks.latency.timing import (
    Interval,
    Rounds,
    merged,
    order_statistics,
    ratio,
    take_passes,
    take_turns,
)


@pytest.mark.parametrize(
    ("n", "rank", "confidence"),
    [(1, 1, 0), (3, 1, 0.75), (5, 1, 0.9375), (6, 1, 0.96875), (9, 2, 0.9609375), (20, 6, 0.958610534667968)],
)
def test_ranks_of_the_bounds(n, rank, confidence):
    """Against binomial tables."""
    assert order_statistics(n) == (rank, pytest.approx(confidence))


@pytest.mark.parametrize("n", [3, 6, 15, 40])
def test_bounds_enclose_the_median_as_often_as_stated(n):
    rng = np.random.default_rng(n)
    runs = rng.exponential(size=(4000, n))  # skewed, as times are
    intervals = [Interval.of(run) for run in runs]
    share = np.mean([interval.low <= np.log(2) <= interval.high for interval in intervals])
    assert share == pytest.approx(intervals[0].confidence, abs=0.02)


def test_outliers_are_found_and_kept():
    samples = [1.0, 1.1, 0.9, 1.0, 9.0, 1.05, 0.95]
    interval = Interval.of(samples)
    assert interval.outliers == (9.0,)
    assert interval.samples == tuple(samples)
    assert interval.high == 9.0
    assert interval.p95 > 5


def test_calls_take_turns_until_tight(monkeypatch):
    clock = count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    order = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    times = take_turns(calls, Rounds(warm_up=2, fewest=6, most=50))
    assert order == ["a", "b"] * 8  # two rounds of warm-up, and six that are as tight as can be
    assert times["a"].samples == (1.0,) * 6


def test_rounds_end_with_the_budget(monkeypatch):
    clock = iter(np.cumsum(np.random.default_rng(0).exponential(size=1000)).tolist())
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    times = take_turns({"a": lambda: None}, Rounds(warm_up=0, fewest=3, most=100, budget_s=20))
    assert 3 <= len(times["a"].samples) < 20
    assert not times["a"].tight


@pytest.mark.parametrize(("call_s", "rounds", "kept"), [(5.0, 3, 3), (0.5, 12, 9)])
def test_passes_over_all_stages(monkeypatch, call_s, rounds, kept):
    """With a budget of 4 s: one round a pass where six do not fit, else a third of the time after one of warm-up."""
    now, order = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def call(name):
        order.append(name)
        now[0] += call_s

    stages = [{"a": lambda: call("a")}, {"b": lambda: call("b")}]
    heard = []
    first, second = take_passes(stages, 4.0, lambda *where: heard.append(where))
    assert first["a"].samples == second["b"].samples == (call_s,) * kept
    each = rounds // 3
    assert order == (["a"] * each + ["b"] * each) * 3
    assert heard == [(number, index) for number in range(3) for index in range(2)]


def test_bounds_span_what_the_passes_saw():
    """A machine that was slower for one pass."""
    steady, slow = Interval.of([1.0] * 50), Interval.of([1.5] * 5)
    found = merged([{"a": steady}, {"a": slow}, {"a": steady}])["a"]
    assert (found.low, found.median, found.high) == (1.0, 1.0, 1.5)
    assert len(found.samples) == 105


def test_a_ratio_is_taken_round_by_round():
    """A machine that slows down for all leaves it as it is."""
    slowdown = np.array([1, 3, 1, 2, 5, 1.0])
    speedup = ratio(Interval.of(4 * slowdown), Interval.of(2 * slowdown))
    assert (speedup.low, speedup.median, speedup.high) == (2, 2, 2)
