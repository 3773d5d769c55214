"""Order of a ranking after each stage, its hits, and near-duplicates among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.geometry import DESCRIPTOR_DIM
from cvnet_engine.engine.retrieval.ranking import (
    COARSE_WEIGHT,
    NEAR_DUPLICATE,
    Ranking,
    final_scores,
    hits,
    near_duplicates,
)

NAN = float("nan")
SIMILARITIES = np.float32([0.1, 0.9, 0.5, 0.9, 0.3])
PATHS = [Path(f"/{row}.jpg") for row in range(4)]


def test_by_similarity_descends_and_ties_keep_their_order():
    ranking = Ranking.by_similarity(SIMILARITIES)
    assert ranking.rows.tolist() == [1, 3, 2, 4, 0]
    assert ranking.similarities.tolist() == SIMILARITIES[[1, 3, 2, 4, 0]].tolist()
    assert np.isnan(ranking.pair_scores).all()
    assert ranking.scores.tolist() == ranking.similarities.tolist()
    assert Ranking.by_similarity(SIMILARITIES[:3], np.array([10, 20, 30])).rows.tolist() == [20, 30, 10]


def test_final_score_is_similarity_plus_half_the_pair_score():
    assert final_scores(np.float32([0.5, 0.5]), np.float32([0.5, NAN])).tolist() == [0.75, 0.5]


@pytest.mark.parametrize(
    ("pair_scores", "rows", "padded"),
    [
        ([], [1, 3, 2, 4, 0], [NAN] * 5),
        ([0.0, 0.5], [3, 1, 2, 4, 0], [0.5, 0.0, NAN, NAN, NAN]),
        ([0.0, 0.1, 1.0], [2, 3, 1, 4, 0], [1.0, 0.1, 0.0, NAN, NAN]),
        ([0.0, 0.1, 0.3], [3, 1, 2, 4, 0], [0.1, 0.0, 0.3, NAN, NAN]),  # the best pair is not the best score
        ([0.5, 0.5], [1, 3, 2, 4, 0], [0.5, 0.5, NAN, NAN, NAN]),  # ties keep their order
        ([-1, -1, -1], [1, 3, 2, 4, 0], [-1, -1, -1, NAN, NAN]),  # low scores stay before unscored images
        ([NAN, 0.0, 0.5], [3, 2, 1, 4, 0], [0.0, 0.5, NAN, NAN, NAN]),  # skipped pairs follow the scored ones
        ([1, 1, 1, 1, 1], [1, 3, 2, 4, 0], [1] * 5),
    ],
)
def test_reranked_sorts_the_shortlist_before_the_rest(pair_scores, rows, padded):
    ranking = Ranking.by_similarity(SIMILARITIES).reranked(np.float32(pair_scores))
    assert ranking.rows.tolist() == rows
    assert ranking.similarities.tolist() == SIMILARITIES[rows].tolist()
    assert np.array_equal(ranking.pair_scores, np.float32(padded), equal_nan=True)


def test_reranking_twice_starts_from_the_present_order():
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


def test_full_scores_go_before_coarse_ones_before_the_rest():
    coarse = Ranking.by_similarity(SIMILARITIES).coarsely_reranked(np.float32([0.1, 0.0, 0.9, 0.6]))
    assert coarse.rows.tolist() == [2, 1, 4, 3, 0]
    ranking = coarse.reranked(np.float32([0.0, 0.2]))
    assert ranking.rows.tolist() == [1, 2, 4, 3, 0]
    assert np.array_equal(ranking.pair_scores, np.float32([0.2, 0.0, NAN, NAN, NAN]), equal_nan=True)
    assert np.array_equal(ranking.coarse_scores, np.float32([0.1, 0.9, 0.6, 0.0, NAN]), equal_nan=True)
    expected = [1.0, 0.5, 0.3 + 0.6 * COARSE_WEIGHT, 0.9, 0.1]  # a full score replaces the coarse one
    np.testing.assert_allclose(ranking.scores, expected, rtol=1e-6)


# hits


def test_hits_have_scores_and_ranks_before_and_after():
    before = Ranking.by_similarity(np.array([0.1, 0.4, 0.3, 0.2], np.float32))
    ranking = before.reranked(np.array([0.0, 0.5], np.float32))
    found = hits(ranking.first(3), before.rows.tolist(), PATHS)
    assert [(hit.path, hit.rank, hit.row, hit.before) for hit in found] == [
        (PATHS[2], 1, 2, 2),
        (PATHS[1], 2, 1, 1),
        (PATHS[3], 3, 3, 3),
    ]
    np.testing.assert_allclose([hit.score for hit in found], [0.55, 0.4, 0.2], rtol=1e-6)
    np.testing.assert_allclose([hit.similarity for hit in found], [0.3, 0.4, 0.2], rtol=1e-6)
    assert [hit.rerank_score for hit in found] == [0.5, 0, None]
    assert {hit.refined for hit in found} == {None}


def test_a_hit_that_was_not_in_the_earlier_order():
    ranking = Ranking.by_similarity(np.array([0.1, 0.4], np.float32)).refined_by(np.array([0.2, 0.9], np.float32))
    first, second = hits(ranking, [1], PATHS)
    assert (first.row, first.before) == (0, None)
    assert (second.row, second.before) == (1, 1)
    np.testing.assert_allclose((first.refined, first.score), (0.9, 0.9), rtol=1e-6)


# near-duplicates


STEP = 0.9 * np.arccos(NEAR_DUPLICATE)  # an angle between near-duplicates; twice that is too far


@pytest.mark.parametrize(
    ("angles", "groups"),
    [
        ((0, 1, STEP, 1 + STEP, 0), [0, 1, 0, 1, 0]),
        ((0, STEP, 2 * STEP, 3 * STEP), [0, 0, 2, 2]),  # groups do not grow by chains
        ((STEP, 0, 2 * STEP), [0, 0, 0]),
        ((), []),
    ],
)
def test_near_duplicates_are_grouped_under_the_best(angles, groups):
    descriptors = np.zeros((len(angles), DESCRIPTOR_DIM), np.float32)
    descriptors[:, 0], descriptors[:, 1] = np.cos(angles), np.sin(angles)
    assert near_duplicates(descriptors).tolist() == groups
