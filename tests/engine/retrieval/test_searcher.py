"""A plan decides what is looked at: how many images, which of them refined, which pairs scored."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import get_args

import numpy as np
import pytest

from cvnet_engine.engine.retrieval.pooling import Pooled
from cvnet_engine.engine.retrieval.ranking import COARSE_WEIGHT, RERANK_WEIGHT, Ranking
from cvnet_engine.engine.retrieval.searcher import (
    CoarselyScored,
    EarlyStopping,
    Plan,
    Ranked,
    Reranked,
    RerankWith,
    Scored,
    Searcher,
)
from cvnet_engine.engine.retrieval.superglobal import Refinement, rerank
from tests.galleries import features

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

    def score_batches(self, _query, _collection, rows, _is_open=None):
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
        found = searcher.find(features(1), plan, lambda count, _: done.append(count))
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


class Pairs(Scorer):
    """Scores of pairs by row, at full size and on pooled maps, in batches of 4; notes what was asked for and scored."""

    def __init__(self, full, rough) -> None:
        self.full, self.rough, self.scored = full, rough, {False: [], True: []}

    def score_batches(self, _query, collection, rows, is_needed=lambda _: True):
        is_rough = isinstance(collection, Pooled)
        for start in range(0, len(rows), 4):
            batch = list(filter(is_needed, rows[start : start + 4]))
            if batch:
                self.scored[is_rough] += batch
                yield batch, (self.rough if is_rough else self.full)[batch]


@pytest.fixture
def scores():
    rng = np.random.default_rng(8)
    return rng.random(IMAGES, np.float32), rng.random(IMAGES, np.float32)


def search(collection, scores, plan):
    pairs = Pairs(*scores)
    with Searcher(pairs, collection) as searcher:
        return searcher.find(features(1), plan).ranking, pairs.scored


def assert_same(one, other):
    for column in fields(Ranking):
        assert np.array_equal(getattr(one, column.name), getattr(other, column.name), equal_nan=True), column.name


@pytest.mark.parametrize("rerank_full", [100, 101, 5000])
def test_where_all_come_to_full_size_there_is_no_rough_look(collection, scores, rerank_full):
    plain, _ = search(collection, scores, Plan(top_k=100))
    ranking, scored = search(collection, scores, Plan(top_k=100, rerank_full=rerank_full))
    assert_same(ranking, plain)
    assert not scored[True]


@pytest.mark.parametrize(("images", "pairs"), [(IMAGES, 100 + 30), (60, 60 + 30), (20, 20)])
def test_how_many_pairs_there_are_is_told_with_each_few(collection, scores, images, pairs):
    told = []
    with Searcher(Pairs(*scores), collection) as searcher:
        searcher.find(features(1), Plan(top_k=40, rerank_full=30), lambda *done: told.append(done), np.arange(images))
    assert (sum(count for count, _ in told), {most for _, most in told}) == (pairs, {pairs})


def test_a_gallery_smaller_than_fine_is_scored_in_full(collection, scores):
    with Searcher(Pairs(*scores), collection) as searcher:
        *steps, found = searcher.steps(features(1), Plan(rerank_full=30), np.arange(20))
    assert [type(step) for step in steps] == [Ranked] + [Scored] * 5
    assert np.isfinite(found.ranking.pair_scores).sum() == 20


@pytest.mark.parametrize("method", ["cvnet", "both"])
def test_the_best_by_pooled_score_are_scored_in_full_and_come_first(collection, scores, method):
    full, rough = scores
    ranking, scored = search(collection, scores, Plan(top_k=100, rerank=80, method=method, rerank_full=30))
    shortlist = scored[True]
    assert len(set(shortlist)) == 80
    place = {row: i for i, row in enumerate(ranking.rows.tolist())}
    similarities = ranking.global_similarities
    mixed = {row: similarities[place[row]] + COARSE_WEIGHT * rough[row] for row in shortlist}
    final = {row: similarities[place[row]] + RERANK_WEIGHT * full[row] for row in shortlist}
    best = sorted(shortlist, key=lambda row: -mixed[row])
    assert sorted(scored[False]) == sorted(best[:30])
    assert ranking.rows[:80].tolist() == sorted(best[:30], key=lambda row: -final[row]) + best[30:]
    assert np.isnan(ranking.pair_scores[30:]).all()
    assert np.isfinite(ranking.coarse_scores[:80]).all()


def test_none_in_full_is_a_ranking_by_pooled_scores(collection, scores):
    ranking, scored = search(collection, scores, Plan(rerank_full=0))
    assert not scored[False]
    assert (np.diff(ranking.scores) <= 0).all()
    assert np.isnan(ranking.pair_scores).all()


@pytest.mark.parametrize("rerank_full", [None, 30])
@pytest.mark.parametrize("top_k", [1, 3, 10])
def test_what_cannot_come_among_the_results_is_not_scored(scores, top_k, rerank_full):
    """Similarities so far apart that a score of 1 cannot make up for them: the results are those of all pairs."""
    collection = Collection()
    query = features(1).descriptor
    spread = np.clip(1 - 0.02 * np.arange(IMAGES), -1, None)[:, None] * query
    collection.descriptors = spread.astype(np.float32)
    every, all_pairs = search(collection, scores, Plan(top_k=100, rerank_full=rerank_full))
    ranking, scored = search(collection, scores, Plan(top_k=top_k, rerank_full=rerank_full))
    assert_same(ranking.first(top_k), every.first(top_k))
    assert len(scored[False]) < len(all_pairs[False])


def test_a_score_that_could_still_equal_the_last_result_is_asked_for():
    pairs = EarlyStopping(Ranking.by_similarity(np.float32([1.0, 0.75, 0.5, 0.25])), 1)
    pairs.add([0], np.float32([0.0]))
    assert [pairs.is_needed(row) for row in (1, 2, 3)] == [True, True, False]


def test_searches_that_take_turns_find_what_each_finds_alone(collection, scores):
    plan, queries = Plan(top_k=20, rerank=40, rerank_full=10), [features(1), features(2)]
    with Searcher(Pairs(*scores), collection) as searcher:
        alone = [searcher.find(query, plan).ranking for query in queries]
        turns = list(zip(*(searcher.steps(query, plan) for query in queries), strict=True))
    assert [type(step) for step, _ in turns] == [Ranked] + [CoarselyScored] * 10 + [Scored] * 3 + [Reranked]
    for found, ranking in zip(turns[-1], alone, strict=True):
        assert_same(found.ranking, ranking)


@pytest.mark.parametrize("method", get_args(RerankWith))
@pytest.mark.parametrize("selection", [None, np.arange(0, IMAGES, 2)])
def test_a_query_of_the_collection_is_no_result_of_its_own(collection, method, selection):
    scorer, row = Scorer(), 6
    query = replace(features(1), descriptor=collection.descriptors[row])
    with Searcher(scorer, collection) as searcher:
        plan = Plan(top_k=40, rerank=40, method=method)
        found = searcher.find(query, plan, selection=selection, own_row=row)
        rows = np.arange(IMAGES) if selection is None else selection
        expected = searcher.find(query, plan, selection=rows[rows != row])
    assert len(found.before.rows) == plan.depth if selection is None else min(plan.depth, IMAGES // 2 - 1)
    assert found.ranking.rows.tolist() == expected.ranking.rows.tolist()
    assert row not in scorer.asked
