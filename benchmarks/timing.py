"""Times of several calls taken in turn (A B A B), and how much is known of their medians.

The interval of a median is that of order statistics: it assumes nothing of how the times are distributed. Of n times
in ascending order, the j-th and the (n + 1 - j)-th enclose the median with probability 1 - 2·P(B(n, 1/2) < j).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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


FEWEST_SLOW = 3  # rounds where six would take longer than the budget; their extremes enclose the median with 75 %


def take_turns(calls: Calls, rounds: Rounds, kept: Sequence[Mapping[str, float]] = ()) -> dict[str, Interval]:
    """Seconds of each call, all of them taken in turn, so that a change of the machine's speed meets all.

    Args:
        kept: rounds that were taken already and count.
    """
    for _ in range(rounds.warm_up):
        one_round(calls)
    taken = list(kept)
    started = time.perf_counter()
    while len(taken) < rounds.most:
        taken.append(one_round(calls))
        spent = time.perf_counter() - started
        if len(taken) >= rounds.fewest and (spent > rounds.budget_s or all(i.tight for i in intervals(taken).values())):
            break
    return intervals(taken)


def take_turns_within(calls: Calls, budget_s: float) -> dict[str, Interval]:
    """`take_turns` for about a time; the first round warms up, and counts where it alone takes longer than that.

    Calls that slow have to be warm: called before, or made of calls that were.
    """
    first = one_round(calls)
    round_s = sum(first.values())
    fewest = Rounds.fewest if Rounds.fewest * round_s <= budget_s else FEWEST_SLOW
    rounds = Rounds(warm_up=0, fewest=fewest, budget_s=budget_s)
    return take_turns(calls, rounds, kept=[first] if round_s > budget_s else [])


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
