"""Times of several calls taken in turn (A B A B), and how much is known of their medians.

The interval of a median is that of order statistics: it assumes nothing of how the times are distributed. Of n times
in ascending order, the j-th and the (n + 1 - j)-th enclose the median with probability 1 - 2·P(B(n, 1/2) < j).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb, inf

import numpy as np

CONFIDENCE = 0.95
TIGHT = 0.02  # half of an interval's width over its median: more rounds would tell little more
OUTLIER = 1.5  # interquartile ranges beyond the quartiles (Tukey's fences)

Calls = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Interval:
    """A median and the bounds that enclose it with probability `confidence`; samples in the order they were taken."""

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
        """Samples far from the middle half; they are part of every figure."""
        lower, upper = np.percentile(self.samples, (25, 75))
        reach = OUTLIER * (upper - lower)
        return tuple(x for x in self.samples if not lower - reach <= x <= upper + reach)

    @property
    def tight(self) -> bool:
        return self.confidence >= CONFIDENCE and self.high - self.low <= 2 * TIGHT * self.median

    def scaled(self, factor: float) -> Interval:
        """Every figure times a positive factor."""
        samples = tuple(factor * x for x in self.samples)
        return Interval(samples, factor * self.median, factor * self.low, factor * self.high, self.confidence)


def order_statistics(n: int) -> tuple[int, float]:
    """The rank j of the bounds, and their confidence: the largest j that reaches `CONFIDENCE`, else 1."""
    below, rank, confidence = 0.0, 1, 1 - 2 * 0.5**n
    for j in range(1, n // 2 + 1):
        below += comb(n, j - 1) * 0.5**n  # P(B(n, 1/2) < j)
        if j > 1 and 1 - 2 * below < CONFIDENCE:
            break
        rank, confidence = j, 1 - 2 * below
    return rank, confidence


@dataclass(frozen=True)
class Rounds:
    """How often to go round.

    Attributes:
        warm_up: rounds that are not kept.
        fewest, most: rounds to keep; between them, rounds end once every interval is tight or `budget_s` is used up.
    """

    warm_up: int = 1
    fewest: int = 6  # whose extremes enclose the median with 97 % confidence
    most: int = 200
    budget_s: float = inf


PASSES = 3  # moments, minutes apart, at which a stage is timed


def take_turns(calls: Calls, rounds: Rounds) -> dict[str, Interval]:
    """Seconds of each call, all of them taken in turn, so that a change of the machine's speed meets all."""
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
    """Each stage's calls in turn, in `PASSES` passes over all stages, so that bounds span the machine's moods.

    Args:
        budget_s: for a stage's rounds in all passes; a stage of which six rounds do not fit gets one a pass. Calls that
            slow have to be warm: called before, or made of calls that were.
        heard: called with the pass and the stage before each.
    """
    found: list[list[dict[str, Interval]]] = [[] for _ in stages]
    for number in range(PASSES):
        for index, calls in enumerate(stages):
            heard(number, index)
            found[index].append(one_pass(calls, budget_s))
    return [merged(passes) for passes in found]


def one_pass(calls: Calls, budget_s: float) -> dict[str, Interval]:
    """A stage's share of the budget; the first round warms up, unless there is no time for more."""
    first = one_round(calls)
    if Rounds.fewest * sum(first.values()) > budget_s:
        return intervals([first])
    return take_turns(calls, Rounds(warm_up=0, fewest=Rounds.fewest // PASSES, budget_s=budget_s / PASSES))


def merged(passes: Sequence[Mapping[str, Interval]]) -> dict[str, Interval]:
    """All samples as one, its bounds no narrower than the medians of the passes are apart."""
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
    """How many times as fast `other` is, from the rounds that both took part in."""
    return Interval.of([a / b for a, b in zip(baseline.samples, other.samples, strict=True)])
