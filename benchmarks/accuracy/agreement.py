"""Comparison of two evaluations of one data set: pair scores, APs and rankings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cvnet_engine.benchmarks.accuracy.evaluation import GLOBAL, Case, Evaluation, QueryEvaluation
from cvnet_engine.benchmarks.accuracy.protocol import SETUPS
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.retrieval.ranking import Ranking

HEAD = 10  # first results of each ranking, compared as a set
ORDERED = 100  # length of a global ranking over which Kendall's tau is computed


@dataclass(frozen=True)
class RankAgreement:
    """Agreement of two methods' rankings, over the queries that have relevant images in one setup.

    Attributes:
        map_difference: mAP of the first method minus mAP of the second.
        largest_ap_difference: largest absolute AP difference of a single query.
        same_first: fraction of queries with the same first result.
        head: mean fraction of the first `HEAD` results that both rankings contain.
        tau: mean Kendall rank correlation over the shortlisted images that both rankings contain.
    """

    map_difference: float
    largest_ap_difference: float
    same_first: float
    head: float
    tau: float


@dataclass(frozen=True)
class Agreement:
    """Comparison of two evaluations.

    Attributes:
        largest_pair_difference: largest absolute difference between the two scores of a pair.
        mean_pair_difference: mean absolute difference.
        ranks: agreement of the rankings per shortlist length and setup.
        ap_differences: per query, the AP difference (first minus second) of each shortlist length and setup.
    """

    largest_pair_difference: float
    mean_pair_difference: float
    ranks: dict[Case, RankAgreement]
    ap_differences: tuple[dict[Case, float], ...]

    def to_json(self) -> dict[str, Any]:
        shortlists = dict.fromkeys(k for k, _ in self.ranks)
        return {
            "largest_pair_difference": self.largest_pair_difference,
            "mean_pair_difference": self.mean_pair_difference,
            "ranks": {
                str(k): {s: asdict(self.ranks[k, s]) for s in SETUPS if (k, s) in self.ranks} for k in shortlists
            },
            "ap_differences": [nested(differences) for differences in self.ap_differences],
        }


def nested(values: dict[Case, float]) -> dict[str, dict[str, float]]:
    """Return the values as a nested dict: shortlist length -> setup -> value."""
    found: dict[str, dict[str, float]] = {}
    for (k, setup), value in values.items():
        found.setdefault(str(k), {})[setup] = value
    return found


def compare(ours: Evaluation, theirs: Evaluation) -> Agreement:
    """Compare the first evaluation with the second, for the shortlist lengths that both contain."""
    pairs = list(zip(ours.queries, theirs.queries, strict=True))
    shortlists = (GLOBAL, *(k for k in ours.shortlists if k in theirs.shortlists))
    outcomes = [(k, setup) for k in shortlists for setup in SETUPS]
    drift = np.concatenate([pair_differences(a, b) for a, b in pairs])
    judged = {outcome: [(a, b) for a, b in pairs if a.results[outcome]] for outcome in outcomes}
    return Agreement(
        float(drift.max(initial=0.0)),
        float(drift.mean()) if len(drift) else 0.0,
        {outcome: rank_agreement(of_setup, outcome) for outcome, of_setup in judged.items() if of_setup},
        tuple({o: ap_difference(a, b, o) for o in outcomes if a.results[o]} for a, b in pairs),
    )


def pair_differences(a: QueryEvaluation, b: QueryEvaluation) -> Array:
    """Return the absolute score differences of the pairs that both evaluations scored."""
    common = [row for row in a.pair_scores if row in b.pair_scores]
    differences: Array = np.abs([a.pair_scores[row] - b.pair_scores[row] for row in common])
    return differences


def ap_difference(a: QueryEvaluation, b: QueryEvaluation, outcome: Case) -> float:
    first, second = a.results[outcome], b.results[outcome]
    assert first
    assert second
    return first.ap - second.ap


def rank_agreement(pairs: list[tuple[QueryEvaluation, QueryEvaluation]], outcome: Case) -> RankAgreement:
    """Compute the agreement over query pairs that have a result in this setup."""
    differences = np.array([ap_difference(a, b, outcome) for a, b in pairs])
    rankings = [(a.rankings[outcome], b.rankings[outcome]) for a, b in pairs]
    depth = outcome[0] or ORDERED
    return RankAgreement(
        map_difference=float(differences.mean()),
        largest_ap_difference=float(np.abs(differences).max()),
        same_first=float(np.mean([a.rows[0] == b.rows[0] for a, b in rankings])),
        head=float(np.mean([in_common(a, b, HEAD) for a, b in rankings])),
        tau=float(np.mean([kendall_tau(a.rows[:depth], b.rows[:depth]) for a, b in rankings])),
    )


def in_common(a: Ranking, b: Ranking, k: int) -> float:
    """Return the fraction of the first k results that both rankings contain."""
    first, second = set(a.rows[:k].tolist()), set(b.rows[:k].tolist())
    return len(first & second) / len(first)


def kendall_tau(a: Array, b: Array) -> float:
    """Return Kendall's rank correlation of the rows in both rankings: 1 for the same order, -1 for the reverse."""
    place = {row: i for i, row in enumerate(b.tolist())}
    order = np.array([place[row] for row in a.tolist() if row in place])
    n = len(order)
    if n < 2:
        return 1.0
    later = np.triu(np.sign(order[None, :] - order[:, None]), 1)
    return float(2 * later.sum() / (n * (n - 1)))
