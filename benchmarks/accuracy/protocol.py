"""Evaluation protocol of Revisited Oxford/Paris (Radenovic et al., CVPR 2018, section 3): setups, AP, mP@k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvnet_engine.benchmarks.accuracy.dataset import GroundTruth
from cvnet_engine.engine.contract import Array

SETUPS = ("E", "M", "H")  # Easy, Medium, Hard
CUTOFFS = (1, 5, 10)


def relevant(truth: GroundTruth, setup: str) -> Array:
    """Return the rows that are relevant in a setup."""
    return np.concatenate({"E": [truth.easy], "M": [truth.easy, truth.hard], "H": [truth.hard]}[setup])


def ignored(truth: GroundTruth, setup: str) -> Array:
    """Return the rows that a setup removes from a ranking before evaluating it."""
    return np.concatenate({"E": [truth.junk, truth.hard], "M": [truth.junk], "H": [truth.junk, truth.easy]}[setup])


@dataclass(frozen=True)
class QueryResult:
    """Result of one ranking: average precision, and precision at each of `CUTOFFS`, as fractions."""

    ap: float
    precisions: tuple[float, ...]


def judge(rows: Array, truth: GroundTruth, setup: str) -> QueryResult | None:
    """Evaluate a complete ranking (rows, best first); returns None if the query has no relevant image in this setup."""
    right = relevant(truth, setup)
    if not len(right):
        return None
    kept = rows[~np.isin(rows, ignored(truth, setup))]
    ranks = np.flatnonzero(np.isin(kept, right))  # 0-based, ascending
    return QueryResult(average_precision(ranks, len(right)), tuple(precision(ranks, k) for k in CUTOFFS))


def average_precision(ranks: Array, relevant_count: int) -> float:
    """Return the area under the precision-recall curve by the trapezoid rule, as in the Oxford Buildings protocol.

    Args:
        ranks: 0-based ranks of the relevant images, ascending.
        relevant_count: number of relevant images.
    """
    found = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, found / np.maximum(ranks, 1))  # precision just before each relevant image
    after = (found + 1) / (ranks + 1)
    return float(((before + after) / 2).sum() / relevant_count)


def precision(ranks: Array, k: int) -> float:
    """Return the precision at k, or at the rank of the last relevant image if that is smaller."""
    cutoff = min(k, int(ranks[-1]) + 1)
    return float(np.count_nonzero(ranks < cutoff) / cutoff)


def summarise(results: Sequence[QueryResult | None]) -> dict[str, float]:
    """Return mAP and mP@1,5,10 over the queries that have a result; NaN if there are none."""
    judged = [r for r in results if r is not None]
    table = np.array([(r.ap, *r.precisions) for r in judged]).reshape(len(judged), 1 + len(CUTOFFS))
    means = table.mean(axis=0) if len(judged) else np.full(1 + len(CUTOFFS), np.nan)
    return dict(zip(("mAP", *(f"mP@{k}" for k in CUTOFFS)), map(float, means), strict=True))
