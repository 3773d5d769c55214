"""Two evaluations compared, on rankings small enough to count by hand."""

import numpy as np
import pytest

from cvnet_engine.benchmarks.accuracy.agreement import compare, kendall_tau
from cvnet_engine.benchmarks.accuracy.dataset import GroundTruth
from cvnet_engine.benchmarks.accuracy.evaluation import GLOBAL, Evaluation, QueryEvaluation
from cvnet_engine.benchmarks.accuracy.protocol import SETUPS, judge
from cvnet_engine.engine.retrieval.ranking import Ranking

TRUTH = GroundTruth((0, 0, 1, 1), easy=np.array([2]), hard=np.array([], int), junk=np.array([], int))


def evaluation(similarities, pair_scores):
    ranking = Ranking.by_similarity(np.array(similarities, np.float32))
    reranked = ranking.reranked(np.array([pair_scores[row] for row in ranking.rows], np.float32))
    rankings = {(GLOBAL, setup): ranking for setup in SETUPS} | {(3, setup): reranked for setup in SETUPS}
    results = {case: judge(ranked.rows, TRUTH, case[1]) for case, ranked in rankings.items()}
    return Evaluation((3,), (QueryEvaluation(ranking, dict(enumerate(pair_scores)), {}, rankings, results, 1.0),))


def test_an_evaluation_agrees_with_itself():
    ours = evaluation([0.9, 0.8, 0.7], [0.1, 0.2, 0.9])
    found = compare(ours, ours)
    assert found.largest_pair_difference == found.mean_pair_difference == 0
    assert set(found.ranks) == {(k, setup) for k in (GLOBAL, 3) for setup in "EM"}  # no query has a hard image
    for ranks in found.ranks.values():
        assert (ranks.map_difference, ranks.same_first, ranks.head, ranks.tau) == (0, 1, 1, 1)


def test_differences_are_counted():
    ours = evaluation([0.9, 0.8, 0.7], [0.1, 0.2, 0.9])  # reranked 2, 0, 1
    theirs = evaluation([0.9, 0.8, 0.7], [0.1, 0.2, 0.4])  # reranked 0, 1, 2
    found = compare(ours, theirs)
    assert found.largest_pair_difference == pytest.approx(0.5)
    assert found.mean_pair_difference == pytest.approx(0.5 / 3)
    assert found.ranks[GLOBAL, "M"].map_difference == 0
    reranked = found.ranks[3, "M"]
    assert reranked.map_difference == reranked.largest_ap_difference == pytest.approx(1 - (0 + 1 / 3) / 2)
    assert (reranked.same_first, reranked.head) == (0, 1)
    assert reranked.tau == pytest.approx(-1 / 3)
    assert found.to_json()["ap_differences"] == [
        {"0": {"E": 0, "M": 0}, "3": {"E": reranked.map_difference, "M": reranked.map_difference}}
    ]


@pytest.mark.parametrize(
    ("a", "b", "tau"),
    [([1, 2, 3], [1, 2, 3], 1), ([1, 2, 3], [3, 2, 1], -1), ([1, 2, 3, 4], [1, 3, 2, 4], 2 / 3), ([1, 5], [1, 6], 1)],
)
def test_rank_correlation(a, b, tau):
    assert kendall_tau(np.array(a), np.array(b)) == pytest.approx(tau)
