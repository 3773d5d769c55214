"""A plan decides what is looked at: how many images, which of them refined, which pairs scored."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from engine.retrieval.ranking import Ranking
from engine.retrieval.searcher import Plan, RerankWith, Searcher
from engine.retrieval.superglobal import Refinement, rerank
from tests.engine.fakes import features

IMAGES = 500


class Collection:
    """Random unit descriptors in four clusters."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        centres = rng.standard_normal((4, 2048))
        rows = centres[np.arange(IMAGES) % 4] + rng.standard_normal((IMAGES, 2048))
        self.descriptors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Scorer:
    """Scores a pair by its row, and notes which were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def score_batches(self, _query, _collection, rows):
        self.asked = list(rows)
        for start in range(0, len(rows), 4):
            batch = rows[start : start + 4]
            yield batch, np.array([row / IMAGES for row in batch], np.float32)


@pytest.fixture
def collection():
    return Collection()


@pytest.mark.parametrize(
    ("plan", "depth", "pairs"),
    [
        (Plan(), 100, 100),
        (Plan(top_k=200), 200, 100),
        (Plan(rerank=0), 10, 0),
        (Plan(method="superglobal"), 100, 0),
        (Plan(method="both", rerank=20), 400, 20),
    ],
)
def test_what_is_ranked_and_scored(collection, plan, depth, pairs):
    scorer, done = Scorer(), []
    with Searcher(scorer, collection) as searcher:
        found = searcher.find(features(1), plan, done.append)
    assert (len(found.before.rows), len(found.ranking.rows)) == (depth, depth)
    assert len(scorer.asked) == sum(done) == pairs
    assert np.count_nonzero(~np.isnan(found.ranking.pair_scores)) == pairs


def test_pairs_of_the_best_that_refinement_leaves(collection):
    """The first 20 of the refined list are scored, and ranked by refined similarity and pair score."""
    query, scorer = features(1), Scorer()
    with Searcher(scorer, collection) as searcher:
        found = searcher.find(query, Plan(rerank=20, method="both"))
    everything = Ranking.by_similarity(collection.descriptors @ query.descriptor)
    refined = rerank(query.descriptor, everything, collection.descriptors, Refinement())
    assert scorer.asked == refined.rows[:20].tolist()
    assert set(found.ranking.rows[:20].tolist()) == set(scorer.asked)
    first = found.ranking.first(20)
    np.testing.assert_allclose(first.scores, first.refined + first.pair_scores / 2, rtol=1e-6)
    assert (np.diff(first.scores) <= 0).all()


@pytest.mark.parametrize("method", get_args(RerankWith))
def test_nothing_to_choose_from_is_nothing_found(collection, method):
    query, plan = features(1), Plan(method=method)
    with Searcher(Scorer(), collection) as searcher:
        ranked, found = searcher.steps(query, plan, np.arange(0))
        assert len(ranked.before.rows) == len(found.ranking.rows) == ranked.pairs == 0


@pytest.mark.parametrize("method", get_args(RerankWith))
@pytest.mark.parametrize("among", [None, np.arange(0, IMAGES, 2)])
def test_a_query_of_the_collection_is_no_result_of_its_own(collection, method, among):
    scorer, row = Scorer(), 6
    query = replace(features(1), descriptor=collection.descriptors[row])
    with Searcher(scorer, collection) as searcher:
        plan = Plan(top_k=40, rerank=40, method=method)
        found = searcher.find(query, plan, among=among, leave_out=row)
        rows = np.arange(IMAGES) if among is None else among
        expected = searcher.find(query, plan, among=rows[rows != row])
    assert len(found.before.rows) == plan.depth if among is None else min(plan.depth, IMAGES // 2 - 1)
    assert found.ranking.rows.tolist() == expected.ranking.rows.tolist()
    assert row not in scorer.asked
