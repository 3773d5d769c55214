"""Rankings are reordered as the formulas say, on examples made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cvnet_engine.engine.retrieval.ranking import COARSE_WEIGHT, Ranking, final_scores

NAN = float("nan")
SIMILARITIES = np.float32([0.1, 0.9, 0.5, 0.9, 0.3])


def test_by_similarity_descends_and_equals_keep_their_order():
    ranking = Ranking.by_similarity(SIMILARITIES)
    assert ranking.rows.tolist() == [1, 3, 2, 4, 0]
    assert ranking.similarities.tolist() == SIMILARITIES[[1, 3, 2, 4, 0]].tolist()
    assert np.isnan(ranking.pair_scores).all()
    assert ranking.scores.tolist() == ranking.similarities.tolist()


def test_by_similarity_of_chosen_rows():
    ranking = Ranking.by_similarity(SIMILARITIES[:3], np.array([10, 20, 30]))
    assert ranking.rows.tolist() == [20, 30, 10]


def test_a_score_is_the_similarity_plus_half_the_pair_score():
    assert final_scores(np.float32([0.5, 0.5]), np.float32([0.5, NAN])).tolist() == [0.75, 0.5]


@pytest.mark.parametrize(
    ("pair_scores", "rows", "padded"),
    [
        ([], [1, 3, 2, 4, 0], [NAN] * 5),
        ([0.0, 0.5], [3, 1, 2, 4, 0], [0.5, 0.0, NAN, NAN, NAN]),
        ([0.0, 0.1, 1.0], [2, 3, 1, 4, 0], [1.0, 0.1, 0.0, NAN, NAN]),
        ([0.0, 0.1, 0.3], [3, 1, 2, 4, 0], [0.1, 0.0, 0.3, NAN, NAN]),  # the best pair is not the best score
        ([0.5, 0.5], [1, 3, 2, 4, 0], [0.5, 0.5, NAN, NAN, NAN]),  # equals stay as they were
        ([1, 1, 1, 1, 1], [1, 3, 2, 4, 0], [1] * 5),
    ],
)
def test_reranked_orders_the_shortlist_and_leaves_the_rest_behind_it(pair_scores, rows, padded):
    ranking = Ranking.by_similarity(SIMILARITIES).reranked(np.float32(pair_scores))
    assert ranking.rows.tolist() == rows
    assert ranking.similarities.tolist() == SIMILARITIES[rows].tolist()
    assert np.array_equal(ranking.pair_scores, np.float32(padded), equal_nan=True)


def test_a_low_shortlist_stays_before_the_rest():
    ranking = Ranking.by_similarity(np.float32([0.9, 0.8, 0.7])).reranked(np.float32([-1.0, -1.0]))
    assert ranking.rows.tolist() == [0, 1, 2]


def test_reranking_again_starts_from_the_present_order():
    once = Ranking.by_similarity(SIMILARITIES).reranked(np.float32([0, 0.1, 1]))
    twice = once.reranked(np.float32([0.0]))
    assert twice.rows.tolist() == once.rows.tolist()
    assert np.array_equal(twice.pair_scores, np.float32([0.0, 0.1, 0.0, NAN, NAN]), equal_nan=True)


def test_first_and_without():
    ranking = Ranking.by_similarity(SIMILARITIES).reranked(np.float32([0.0, 0.5]))
    assert ranking.first(2).rows.tolist() == [3, 1]
    assert ranking.first(99).rows.tolist() == ranking.rows.tolist()
    kept = ranking.without(np.array([3, 2]))
    assert kept.rows.tolist() == [1, 4, 0]
    assert kept.similarities.tolist() == SIMILARITIES[[1, 4, 0]].tolist()
    assert np.array_equal(kept.pair_scores, np.float32([0.0, NAN, NAN]), equal_nan=True)
    assert ranking.without(np.array([], np.int64)).rows.tolist() == ranking.rows.tolist()


def test_what_is_scored_in_full_comes_first_and_then_what_was_looked_at():
    """Whatever a pooled score says, it places an image behind those of full size, and before those not looked at."""
    rough = Ranking.by_similarity(SIMILARITIES).coarsely_reranked(np.float32([0.1, 0.0, 0.9, 0.6]))
    assert rough.rows.tolist() == [2, 1, 4, 3, 0]
    ranking = rough.reranked(np.float32([0.0, 0.2]))
    assert ranking.rows.tolist() == [1, 2, 4, 3, 0]
    assert np.array_equal(ranking.pair_scores, np.float32([0.2, 0.0, NAN, NAN, NAN]), equal_nan=True)
    assert np.array_equal(ranking.coarse_scores, np.float32([0.1, 0.9, 0.6, 0.0, NAN]), equal_nan=True)
    expected = [1.0, 0.5, 0.3 + 0.6 * COARSE_WEIGHT, 0.9, 0.1]  # no pooled score where there is one in full
    np.testing.assert_allclose(ranking.scores, expected, rtol=1e-6)


def test_a_pair_that_was_not_needed_goes_behind_those_that_were():
    ranking = Ranking.by_similarity(np.float32([0.9, 0.8, 0.7, 0.6])).reranked(np.float32([NAN, 0.0, 0.5]))
    assert ranking.rows.tolist() == [2, 1, 0, 3]
