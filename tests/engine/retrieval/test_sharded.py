"""Rows spread over parts are ranked as in one place, bit for bit; a part that is lost takes its rows with it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest

from cvnet_engine.engine.errors import ShardsLostError
from cvnet_engine.engine.retrieval.engines import batches_of_equal
from cvnet_engine.engine.retrieval.pooling import Pooled
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.search import DescriptorIndex
from cvnet_engine.engine.retrieval.searcher import Plan, Ranked, Reranked, RerankWith, Scored, Searcher
from cvnet_engine.engine.retrieval.sharded import Coverage, ReachableShards, ShardedSearcher, merged
from tests.galleries import features

IMAGES = 300
BOUNDS = (0, 1, 90, 90, 210, IMAGES)  # of the parts, one of which has nothing
QUERY = features(1)


class Collection:
    """Unit descriptors in three clusters, every seventh image a copy of another; maps of two sizes; pair scores."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        rows = rng.standard_normal((3, 2048))[np.arange(IMAGES) % 3] + rng.standard_normal((IMAGES, 2048))
        rows[::7] = rows[(11 * np.arange(0, IMAGES, 7)) % 70]
        self.descriptors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        self.scores = rng.integers(0, 4, (2, IMAGES)).astype(np.float32) / 4  # full and on pooled maps; many are equal

    def map_size(self, row):
        return (4, 6) if row % 3 else (6, 4)

    def score_batches(self, _query, collection, rows, is_needed):
        for batch in batches_of_equal(rows, self.map_size):
            if left := list(filter(is_needed, batch)):
                yield left, self.scores[int(isinstance(collection, Pooled))][left]


class ShardState:
    """A part in this process: it answers from threads, in any order, unless it is lost, or after so many pairs."""

    pool = ThreadPoolExecutor(4)

    def __init__(self, whole: Collection, start: int, stop: int) -> None:
        self.whole, self.start, self.stop = whole, start, stop
        self.index = DescriptorIndex(whole.descriptors[start:stop])
        self.lost, self.lasts = False, IMAGES
        self.asked: list[str] = []

    def __len__(self):
        return self.stop - self.start

    def is_here(self):
        return not self.lost

    def answer(self, what, work) -> Future:
        self.asked.append(what)

        def answered():
            if self.lost:
                raise ShardsLostError("gone")
            return work()

        return self.pool.submit(answered)

    def search(self, descriptor, k, selection):
        return self.answer("search", lambda: self.index.search(descriptor, k, selection))

    def descriptors(self, rows):
        return self.answer("descriptors", lambda: self.whole.descriptors[self.start : self.stop][rows])

    def score(self, query, rows, coarse):
        assert isinstance(query, str)
        self.lasts -= len(rows)
        self.lost |= self.lasts < 0
        return self.answer("score", lambda: self.whole.scores[int(coarse)][self.start : self.stop][rows])


@pytest.fixture(scope="module")
def collection():
    return Collection()


@pytest.fixture
def parts(collection):
    return [ShardState(collection, start, stop) for start, stop in pairwise(BOUNDS)]


def spread(collection, parts):
    return ShardedSearcher(collection.map_size, parts, send=lambda _: "sent")


def assert_same(one: Ranking, other: Ranking) -> None:
    for column in fields(Ranking):
        assert np.array_equal(getattr(one, column.name), getattr(other, column.name), equal_nan=True), column.name


SELECTIONS = [None, np.arange(0, IMAGES, 2), np.arange(20, 30), np.arange(0)]


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("k", [1, 20, IMAGES + 5])
def test_the_rankings_of_parts_come_to_that_of_all(collection, parts, k, selection):
    """Copies are equally similar: they stand by their rows, in whatever parts these are."""
    rest = ReachableShards(collection.map_size, spread(collection, parts)._parts, lambda query: query)
    query = collection.descriptors[7]
    found, exact = rest.search(query, k, selection)
    assert exact
    assert_same(found, DescriptorIndex(collection.descriptors).search(query, k, selection))


def test_nothing_comes_to_nothing(collection):
    assert len(merged([]).rows) == 0
    *_, found = spread(collection, []).steps(QUERY, Plan())
    assert len(found.ranking.rows) == 0


@pytest.mark.parametrize("rerank_full", [None, 7])
@pytest.mark.parametrize("method", get_args(RerankWith))
@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("top_k", [5, 60])
def test_what_is_found_is_what_is_found_in_one_place(collection, parts, method, selection, rerank_full, top_k):
    """The best are the same, though which other pairs were scored depends on who scored first."""
    plan, query = (
        Plan(top_k, rerank=40, method=method, rerank_full=rerank_full),
        replace(QUERY, descriptor=collection.descriptors[4]),
    )
    with Searcher(collection, collection) as searcher:
        expected = searcher.find(query, plan, selection=selection, own_row=4)
    coverage, ranked, *_, found = spread(collection, parts).steps(query, plan, selection, own_row=4)
    assert coverage == Coverage(0, 0, len(parts))
    assert isinstance(ranked, Ranked)
    assert isinstance(found, Reranked)
    assert_same(found.before, expected.before)
    assert_same(found.ranking.first(top_k), expected.ranking.first(top_k))


def test_a_part_that_is_lost_is_missing_with_its_rows(collection, parts):
    parts[4].lost = True
    coverage, *_, found = spread(collection, parts).steps(QUERY, Plan(rerank=40))
    assert coverage == Coverage(90, 1, len(parts))
    with Searcher(collection, collection) as searcher:
        assert_same(
            found.ranking.first(10), searcher.find(QUERY, Plan(rerank=40), selection=np.arange(210)).ranking.first(10)
        )
    coverage, *_ = spread(collection, parts).steps(QUERY, Plan(rerank=40), np.arange(150, 220))
    assert coverage == Coverage(10, 1, len(parts))
    assert parts[4].asked == []


@pytest.mark.parametrize("method", ["cvnet", "both"])
@pytest.mark.parametrize("after", [0, 1, 9])
def test_a_part_that_is_lost_on_the_way_lets_the_search_begin_anew(collection, parts, method, after):
    """The result is whole without it, not one that lacks its scores."""
    plan = Plan(top_k=60, rerank=60, method=method)
    parts[1].lasts = after
    steps = list(spread(collection, parts).steps(QUERY, plan))
    begins = [place for place, step in enumerate(steps) if isinstance(step, Coverage)]
    assert [steps[place] for place in begins] == [Coverage(0, 0, len(parts)), Coverage(89, 1, len(parts))]
    assert sum(len(step.rows) for step in steps[begins[1] :] if isinstance(step, Scored)) == 60
    with Searcher(collection, collection) as searcher:
        rest = np.delete(np.arange(IMAGES), slice(1, 90))
        assert_same(steps[-1].ranking, searcher.find(QUERY, plan, selection=rest).ranking)


def test_a_part_that_is_back_is_searched_again(collection, parts):
    searcher = spread(collection, parts)
    parts[4].lost = True
    assert next(searcher.steps(QUERY, Plan())).missing_images
    parts[4].lost = False
    assert next(searcher.steps(QUERY, Plan())) == Coverage(0, 0, len(parts))


def test_where_no_part_answers_nothing_is_found(collection, parts):
    for part in parts:
        part.lost = True
    with pytest.raises(ShardsLostError, match="try again"):
        list(spread(collection, parts).steps(QUERY, Plan()))


def test_searches_that_take_turns_find_what_each_finds_alone(collection, parts):
    searcher, plan = spread(collection, parts), Plan(top_k=30, rerank=30)
    queries = [QUERY, features(2)]
    alone = [list(searcher.steps(query, plan))[-1].ranking for query in queries]
    turns = list(zip(*(searcher.steps(query, plan) for query in queries), strict=False))
    for found, ranking in zip(turns[-1], alone, strict=True):
        if isinstance(found, Reranked):
            assert_same(found.ranking, ranking)


def test_each_part_has_two_batches_at_most(collection, parts):
    """A search that is given up leaves no more behind."""
    steps = spread(collection, parts).steps(QUERY, Plan(top_k=60, rerank=60))
    next(step for step in steps if isinstance(step, Scored))
    steps.close()
    assert max(part.asked.count("score") for part in parts) <= 2
