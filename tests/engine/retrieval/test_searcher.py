"""Steps of a search: which images are ranked, which pairs are scored at each resolution, and the final order."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import get_args

import numpy as np
import pytest

from cvnet_engine.engine.retrieval.pooling import Pooled
from cvnet_engine.engine.retrieval.ranking import COARSE_WEIGHT, RERANK_WEIGHT, Ranking
from cvnet_engine.engine.retrieval.searcher import EarlyStopping, Plan, Ranked, Reranked, RerankWith, Scored, Searcher
from cvnet_engine.engine.retrieval.superglobal import Refinement, rerank
from tests.galleries import features

IMAGES = 500
METHODS = pytest.mark.parametrize("method", get_args(RerankWith))


class Collection:
    """Random unit descriptors in four clusters."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        rows = rng.standard_normal((4, 2048))[np.arange(IMAGES) % 4] + rng.standard_normal((IMAGES, 2048))
        self.descriptors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class FakeEngines:
    """Random pair scores by row, in batches of 4. Records the scored rows by resolution."""

    def __init__(self) -> None:
        self.full, self.coarse = np.random.default_rng(8).random((2, IMAGES), np.float32)
        self.scored_full: list[int] = []
        self.scored_coarse: list[int] = []

    def score_batches(self, _query, collection, rows, is_needed):
        coarse = isinstance(collection, Pooled)
        for start in range(0, len(rows), 4):
            if batch := list(filter(is_needed, rows[start : start + 4])):
                (self.scored_coarse if coarse else self.scored_full).extend(batch)
                yield batch, (self.coarse if coarse else self.full)[batch]


@pytest.fixture
def collection():
    return Collection()


@pytest.fixture
def engines():
    return FakeEngines()


def search(engines, collection, plan, **options) -> Ranking:
    with Searcher(engines, collection) as searcher:
        return searcher.find(features(1), plan, **options).ranking


def assert_same(one, other):
    for column in fields(Ranking):
        assert np.array_equal(getattr(one, column.name), getattr(other, column.name), equal_nan=True), column.name


@pytest.mark.parametrize(
    ("plan", "depth", "pairs"),
    [
        (Plan(top_k=100), 100, 100),
        (Plan(top_k=200), 200, 100),
        (Plan(rerank=0), 10, 0),
        (Plan(method="superglobal"), 100, 0),
        (Plan(method="both", rerank=20, top_k=20), 400, 20),
    ],
)
def test_numbers_of_ranked_images_and_scored_pairs(engines, collection, plan, depth, pairs):
    done = []
    with Searcher(engines, collection) as searcher:
        found = searcher.find(features(1), plan, lambda count, _: done.append(count))
    assert (len(found.before.rows), len(found.ranking.rows)) == (depth, depth)
    assert len(engines.scored_full) == sum(done) == pairs
    assert np.count_nonzero(~np.isnan(found.ranking.pair_scores)) == pairs


def test_pairs_of_the_best_refined_descriptors_are_scored(engines, collection):
    query = features(1).descriptor
    first = search(engines, collection, Plan(top_k=20, rerank=20, method="both")).first(20)
    by_similarity = Ranking.by_similarity(collection.descriptors @ query)
    refined = rerank(query, by_similarity, collection.descriptors, Refinement())
    assert engines.scored_full == refined.rows[:20].tolist()
    assert set(first.rows.tolist()) == set(engines.scored_full)
    np.testing.assert_allclose(first.scores, first.refined + first.pair_scores / 2, rtol=1e-6)
    assert (np.diff(first.scores) <= 0).all()


@METHODS
def test_an_empty_selection_finds_nothing(engines, collection, method):
    with Searcher(engines, collection) as searcher:
        ranked, found = searcher.steps(features(1), Plan(method=method), np.arange(0))
    assert len(ranked.before.rows) == len(found.ranking.rows) == ranked.pairs == 0


@pytest.mark.parametrize("rerank_full", [100, 101, 5000])
def test_no_coarse_stage_if_all_are_scored_in_full(engines, collection, rerank_full):
    ranking = search(engines, collection, Plan(top_k=100, rerank_full=rerank_full))
    assert_same(ranking, search(FakeEngines(), collection, Plan(top_k=100)))
    assert not engines.scored_coarse


@pytest.mark.parametrize(("images", "coarse", "full"), [(IMAGES, 100, 30), (60, 60, 30), (20, 0, 20)])
def test_progress_counts_pairs_of_both_resolutions(engines, collection, images, coarse, full):
    plan, done = Plan(top_k=40, rerank_full=30), []
    search(engines, collection, plan, done=lambda *counts: done.append(counts), selection=np.arange(images))
    assert (sum(count for count, _ in done), {of for _, of in done}) == (coarse + full, {coarse + full})
    assert (len(engines.scored_coarse), len(engines.scored_full)) == (coarse, full)


@pytest.mark.parametrize("method", ["cvnet", "both"])
def test_the_best_coarse_scores_are_scored_in_full_and_first(engines, collection, method):
    ranking = search(engines, collection, Plan(top_k=100, rerank=80, method=method, rerank_full=30))
    shortlist = engines.scored_coarse
    assert len(set(shortlist)) == 80
    similarities = dict(zip(ranking.rows.tolist(), ranking.global_similarities, strict=True))
    coarse = {row: similarities[row] + COARSE_WEIGHT * engines.coarse[row] for row in shortlist}
    final = {row: similarities[row] + RERANK_WEIGHT * engines.full[row] for row in shortlist}
    best = sorted(shortlist, key=lambda row: -coarse[row])
    assert sorted(engines.scored_full) == sorted(best[:30])
    assert ranking.rows[:80].tolist() == sorted(best[:30], key=lambda row: -final[row]) + best[30:]
    assert np.isnan(ranking.pair_scores[30:]).all()
    assert np.isfinite(ranking.coarse_scores[:80]).all()


def test_rerank_full_0_ranks_by_coarse_scores(engines, collection):
    ranking = search(engines, collection, Plan(rerank_full=0))
    assert not engines.scored_full
    assert (np.diff(ranking.scores) <= 0).all()
    assert np.isnan(ranking.pair_scores).all()


@pytest.mark.parametrize("rerank_full", [None, 30])
@pytest.mark.parametrize("top_k", [1, 3, 10])
def test_early_stopping_does_not_change_the_results(collection, top_k, rerank_full):
    """With similarities so far apart that a pair score of 1 cannot make up for them."""
    spread = np.clip(1 - 0.02 * np.arange(IMAGES), -1, None)[:, None] * features(1).descriptor
    collection.descriptors = spread.astype(np.float32)
    every, some = FakeEngines(), FakeEngines()
    expected = search(every, collection, Plan(top_k=100, rerank_full=rerank_full))
    ranking = search(some, collection, Plan(top_k=top_k, rerank_full=rerank_full))
    assert_same(ranking.first(top_k), expected.first(top_k))
    assert len(some.scored_full) < len(every.scored_full)


def test_a_pair_that_could_equal_the_last_result_is_needed():
    pairs = EarlyStopping(Ranking.by_similarity(np.float32([1.0, 0.75, 0.5, 0.25])), 1)
    pairs.add([0], np.float32([0.0]))
    assert [pairs.is_needed(row) for row in (1, 2, 3)] == [True, True, False]


def test_alternating_searches_find_what_each_finds_alone(engines, collection):
    plan, queries = Plan(top_k=20, rerank=40, rerank_full=10), [features(1), features(2)]
    with Searcher(engines, collection) as searcher:
        alone = [searcher.find(query, plan).ranking for query in queries]
        turns = list(zip(*(searcher.steps(query, plan) for query in queries), strict=True))
    assert [type(step) for step, _ in turns] == [Ranked] + [Scored] * (10 + 3) + [Reranked]
    assert [step.coarse for step, _ in turns[1:-1]] == [True] * 10 + [False] * 3
    for found, ranking in zip(turns[-1], alone, strict=True):
        assert_same(found.ranking, ranking)


@METHODS
@pytest.mark.parametrize("selection", [None, np.arange(0, IMAGES, 2)])
def test_the_querys_own_row_is_not_a_result(engines, collection, method, selection):
    row, plan = 6, Plan(top_k=40, rerank=40, method=method)
    query = replace(features(1), descriptor=collection.descriptors[row])
    rows = np.arange(IMAGES) if selection is None else selection
    with Searcher(engines, collection) as searcher:
        found = searcher.find(query, plan, selection=selection, own_row=row)
        expected = searcher.find(query, plan, selection=rows[rows != row])
    assert len(found.before.rows) == min(plan.depth, len(rows) - 1)
    assert found.ranking.rows.tolist() == expected.ranking.rows.tolist()
    assert row not in engines.scored_full
