"""Search by shard workers gives the same ranking as one process; rows of a lost worker are missing."""

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
from cvnet_engine.engine.retrieval.sharded import AHEAD, Coverage, ShardedSearcher, merged
from tests.galleries import features

IMAGES = 300
BOUNDS = (0, 1, 90, 90, 210, IMAGES)  # rows of the workers; one has none
QUERY = features(1)


class Collection:
    """Unit descriptors in three clusters, every seventh image a copy of another; maps of two sizes; pair scores."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        rows = rng.standard_normal((3, 2048))[np.arange(IMAGES) % 3] + rng.standard_normal((IMAGES, 2048))
        rows[::7] = rows[(11 * np.arange(0, IMAGES, 7)) % 70]
        self.descriptors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        self.scores = rng.integers(0, 4, (2, IMAGES)).astype(np.float32) / 4  # full, coarse; many are equal

    def map_size(self, row):
        return (4, 6) if row % 3 else (6, 4)

    def score_batches(self, _query, collection, rows, is_needed):
        for batch in batches_of_equal(rows, self.map_size, is_needed):
            yield batch, self.scores[int(isinstance(collection, Pooled))][batch]


class FakeWorker:
    """A shard worker in this process. Answers come from threads, in any order, until it is lost."""

    pool = ThreadPoolExecutor(4)

    def __init__(self, whole: Collection, start: int, stop: int) -> None:
        self.whole, self.start, self.stop = whole, start, stop
        self.index = DescriptorIndex(whole.descriptors[start:stop])
        self.lost, self.lost_after = False, IMAGES  # pairs
        self.calls: list[str] = []

    def __len__(self):
        return self.stop - self.start

    def is_here(self):
        return not self.lost

    def answer(self, method, work) -> Future:
        self.calls.append(method)

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
        assert query == "sent"
        self.lost_after -= len(rows)
        self.lost |= self.lost_after < 0
        return self.answer("score", lambda: self.whole.scores[int(coarse)][self.start : self.stop][rows])


@pytest.fixture(scope="module")
def collection():
    return Collection()


@pytest.fixture
def workers(collection):
    return [FakeWorker(collection, start, stop) for start, stop in pairwise(BOUNDS)]


@pytest.fixture
def sharded(collection, workers):
    return ShardedSearcher(collection.map_size, workers, send=lambda _: "sent")


def expected(collection, query, plan, **options):
    """The result of a search in one process."""
    with Searcher(collection, collection) as searcher:
        return searcher.find(query, plan, **options)


def assert_same(one: Ranking, other: Ranking) -> None:
    for column in fields(Ranking):
        assert np.array_equal(getattr(one, column.name), getattr(other, column.name), equal_nan=True), column.name


SELECTIONS = pytest.mark.parametrize("selection", [None, np.arange(0, IMAGES, 2), np.arange(20, 30), np.arange(0)])


@SELECTIONS
@pytest.mark.parametrize("k", [1, 20, IMAGES + 5])
def test_merged_rankings_equal_that_of_the_whole(collection, sharded, k, selection):
    """Copies have equal similarities and are ordered by row, whichever workers have them."""
    query = collection.descriptors[7]
    found, exact = sharded._shards.search(query, k, selection)
    assert exact
    assert_same(found, DescriptorIndex(collection.descriptors).search(query, k, selection))


def test_no_workers_find_nothing(collection):
    assert len(merged([]).rows) == 0
    *_, found = ShardedSearcher(collection.map_size, []).steps(QUERY, Plan())
    assert len(found.ranking.rows) == 0


@pytest.mark.parametrize("rerank_full", [None, 7])
@pytest.mark.parametrize("method", get_args(RerankWith))
@SELECTIONS
@pytest.mark.parametrize("top_k", [5, 60])
def test_results_equal_those_of_one_process(collection, sharded, workers, method, selection, rerank_full, top_k):
    """The best are the same, although which other pairs are scored depends on the order of the answers."""
    plan = Plan(top_k, rerank=40, method=method, rerank_full=rerank_full)
    query = replace(QUERY, descriptor=collection.descriptors[4])
    alone = expected(collection, query, plan, selection=selection, own_row=4)
    coverage, ranked, *_, found = sharded.steps(query, plan, selection, own_row=4)
    assert coverage == Coverage(0, 0, len(workers))
    assert isinstance(ranked, Ranked)
    assert isinstance(found, Reranked)
    assert_same(found.before, alone.before)
    assert_same(found.ranking.first(top_k), alone.ranking.first(top_k))


def test_rows_of_a_lost_worker_are_missing_until_it_is_back(collection, sharded, workers):
    plan = Plan(rerank=40)
    workers[4].lost = True
    coverage, *_, found = sharded.steps(QUERY, plan)
    assert coverage == Coverage(90, 1, len(workers))
    alone = expected(collection, QUERY, plan, selection=np.arange(210))
    assert_same(found.ranking.first(10), alone.ranking.first(10))
    coverage, *_ = sharded.steps(QUERY, plan, np.arange(150, 220))
    assert coverage == Coverage(10, 1, len(workers))
    assert workers[4].calls == []
    workers[4].lost = False
    assert next(sharded.steps(QUERY, plan)) == Coverage(0, 0, len(workers))


@pytest.mark.parametrize("method", ["cvnet", "both"])
@pytest.mark.parametrize("after", [0, 1, 9])
def test_a_search_restarts_without_a_worker_lost_meanwhile(collection, sharded, workers, method, after):
    plan = Plan(top_k=60, rerank=60, method=method)
    workers[1].lost_after = after
    steps = list(sharded.steps(QUERY, plan))
    starts = [number for number, step in enumerate(steps) if isinstance(step, Coverage)]
    assert [steps[number] for number in starts] == [Coverage(0, 0, len(workers)), Coverage(89, 1, len(workers))]
    assert sum(len(step.rows) for step in steps[starts[1] :] if isinstance(step, Scored)) == 60
    rest = np.delete(np.arange(IMAGES), slice(1, 90))
    assert_same(steps[-1].ranking, expected(collection, QUERY, plan, selection=rest).ranking)


def test_a_search_without_any_worker_is_an_error(sharded, workers):
    for worker in workers:
        worker.lost = True
    with pytest.raises(ShardsLostError, match="try again"):
        list(sharded.steps(QUERY, Plan()))


def test_a_worker_has_at_most_two_batches_of_a_search(sharded, workers):
    """A cancelled search leaves no more behind."""
    steps = sharded.steps(QUERY, Plan(top_k=60, rerank=60))
    next(step for step in steps if isinstance(step, Scored))
    steps.close()
    assert max(worker.calls.count("score") for worker in workers) <= AHEAD
