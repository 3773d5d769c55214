"""Times of several calls taken in turn (A B A B), and confidence intervals of their medians.

The interval of a median uses order statistics, so it assumes nothing about the distribution. Of n times in ascending
order, the j-th and the (n + 1 - j)-th enclose the median with probability 1 - 2·P(B(n, 1/2) < j).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb, inf

import numpy as np

CONFIDENCE = 0.95
TIGHT = 0.02  # half width of an interval relative to its median, below which rounds end
OUTLIER = 1.5  # interquartile ranges beyond the quartiles (Tukey's fences)

Calls = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Interval:
    """A median and the bounds that enclose it with probability `confidence`; samples are in measured order."""

    samples: tuple[float, ...]
    median: float
    low: float
    high: float
    confidence: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Interval:
        ordered = sorted(samples)
        rank, confidence = order_statistics(len(ordered))
        median = float(np.median(ordered))
        return cls(tuple(samples), median, ordered[rank - 1], ordered[-rank], confidence)

    @property
    def p95(self) -> float:
        return float(np.percentile(self.samples, 95))

    @property
    def outliers(self) -> tuple[float, ...]:
        """Samples beyond Tukey's fences; they are not removed from the other figures."""
        lower, upper = np.percentile(self.samples, (25, 75))
        reach = OUTLIER * (upper - lower)
        return tuple(x for x in self.samples if not lower - reach <= x <= upper + reach)

    @property
    def tight(self) -> bool:
        return self.confidence >= CONFIDENCE and self.high - self.low <= 2 * TIGHT * self.median

    def scaled(self, factor: float) -> Interval:
        """Multiply every figure by a positive factor."""
        samples = tuple(factor * x for x in self.samples)
        return Interval(samples, factor * self.median, factor * self.low, factor * self.high, self.confidence)


def order_statistics(n: int) -> tuple[int, float]:
    """Return the rank j of the bounds and their confidence: the largest j that reaches `CONFIDENCE`, else 1."""
    below, rank, confidence = 0.0, 1, 1 - 2 * 0.5**n
    for j in range(1, n // 2 + 1):
        below += comb(n, j - 1) * 0.5**n  # P(B(n, 1/2) < j)
        if j > 1 and 1 - 2 * below < CONFIDENCE:
            break
        rank, confidence = j, 1 - 2 * below
    return rank, confidence


@dataclass(frozen=True)
class Rounds:
    """Number of rounds.

    Attributes:
        warm_up: discarded rounds.
        fewest, most: rounds to keep; between them, rounds end when every interval is tight or `budget_s` is used up.
    """

    warm_up: int = 1
    fewest: int = 6  # the extremes of 6 enclose the median with 97 % confidence
    most: int = 200
    budget_s: float = inf


PASSES = 3  # passes over all stages, minutes apart


def take_turns(calls: Calls, rounds: Rounds) -> dict[str, Interval]:
    """Return the seconds of each call, taken in turn so that a change of the machine's speed affects all calls."""
    for _ in range(rounds.warm_up):
        one_round(calls)
    taken: list[dict[str, float]] = []
    started = time.perf_counter()
    while len(taken) < rounds.most:
        taken.append(one_round(calls))
        spent = time.perf_counter() - started
        if len(taken) >= rounds.fewest and (spent > rounds.budget_s or all(i.tight for i in intervals(taken).values())):
            break
    return intervals(taken)


def take_passes(
    stages: Sequence[Calls], budget_s: float, heard: Callable[[int, int], None] = lambda *_: None
) -> list[dict[str, Interval]]:
    """Time each stage in `PASSES` passes over all stages, so that bounds include slow changes of the machine's speed.

    Args:
        budget_s: time per stage in all passes. A stage that does not fit six rounds gets one round per pass; its calls
            must be warmed up before.
        heard: called with the pass and the stage before each.
    """
    found: list[list[dict[str, Interval]]] = [[] for _ in stages]
    for number in range(PASSES):
        for index, calls in enumerate(stages):
            heard(number, index)
            found[index].append(one_pass(calls, budget_s))
    return [merged(passes) for passes in found]


def one_pass(calls: Calls, budget_s: float) -> dict[str, Interval]:
    """Time a stage once; the first round is a warm-up unless it shows that only one round fits."""
    first = one_round(calls)
    if Rounds.fewest * sum(first.values()) > budget_s:
        return intervals([first])
    return take_turns(calls, Rounds(warm_up=0, fewest=Rounds.fewest // PASSES, budget_s=budget_s / PASSES))


def merged(passes: Sequence[Mapping[str, Interval]]) -> dict[str, Interval]:
    """Merge the samples; the bounds include the median of every pass."""
    found = {}
    for name in passes[0]:
        parts = [p[name] for p in passes]
        whole = Interval.of([sample for part in parts for sample in part.samples])
        medians = [part.median for part in parts]
        found[name] = replace(whole, low=min(whole.low, *medians), high=max(whole.high, *medians))
    return found


def one_round(calls: Calls) -> dict[str, float]:
    return {name: seconds(call) for name, call in calls.items()}


def intervals(taken: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    return {name: Interval.of([times[name] for times in taken]) for name in taken[0]}


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def ratio(baseline: Interval, other: Interval) -> Interval:
    """Return how many times as fast `other` is than `baseline`, from their common rounds."""
    return Interval.of([a / b for a, b in zip(baseline.samples, other.samples, strict=True)])
