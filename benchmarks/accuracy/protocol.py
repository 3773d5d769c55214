"""The evaluation protocol of Revisited Oxford/Paris (Radenovic et al., CVPR 2018, section 3): setups, AP, mP@k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvnet_engine.benchmarks.accuracy.dataset import GroundTruth
from cvnet_engine.engine.contract import Array

SETUPS = ("E", "M", "H")  # Easy, Medium, Hard
CUTOFFS = (1, 5, 10)


def relevant(truth: GroundTruth, setup: str) -> Array:
    """Rows that count as right."""
    return np.concatenate({"E": [truth.easy], "M": [truth.easy, truth.hard], "H": [truth.hard]}[setup])


def ignored(truth: GroundTruth, setup: str) -> Array:
    """Rows that are taken out of a ranking before it is judged."""
    return np.concatenate({"E": [truth.junk, truth.hard], "M": [truth.junk], "H": [truth.junk, truth.easy]}[setup])


@dataclass(frozen=True)
class QueryResult:
    """How well one ranking did: average precision, and precision at each of `CUTOFFS`, as fractions."""

    ap: float
    precisions: tuple[float, ...]


def judge(rows: Array, truth: GroundTruth, setup: str) -> QueryResult | None:
    """A query's result from its whole ranking (rows, best first), None where the setup has no relevant image for it."""
    right = relevant(truth, setup)
    if not len(right):
        return None
    kept = rows[~np.isin(rows, ignored(truth, setup))]
    ranks = np.flatnonzero(np.isin(kept, right))  # 0-based, ascending
    return QueryResult(average_precision(ranks, len(right)), tuple(precision(ranks, k) for k in CUTOFFS))


def average_precision(ranks: Array, relevant_count: int) -> float:
    """Area under the precision-recall curve by the trapezoid rule, as in the Oxford buildings protocol.

    Args:
        ranks: 0-based ranks of the relevant images, ascending.
        relevant_count: how many there are in all.
    """
    found = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, found / np.maximum(ranks, 1))  # precision just before each relevant image
    after = (found + 1) / (ranks + 1)
    return float(((before + after) / 2).sum() / relevant_count)


def precision(ranks: Array, k: int) -> float:
    """Precision at k, or at the last relevant image's rank where that comes before k."""
    cutoff = min(k, int(ranks[-1]) + 1)
    return float(np.count_nonzero(ranks < cutoff) / cutoff)


def summarise(results: Sequence[QueryResult | None]) -> dict[str, float]:
    """mAP and mP@1,5,10 over the queries that have a result; NaN where none has."""
    judged = [r for r in results if r is not None]
    table = np.array([(r.ap, *r.precisions) for r in judged]).reshape(len(judged), 1 + len(CUTOFFS))
    means = table.mean(axis=0) if len(judged) else np.full(1 + len(CUTOFFS), np.nan)
    return dict(zip(("mAP", *(f"mP@{k}" for k in CUTOFFS)), map(float, means), strict=True))
