"""Stored scores are computed once, resume after an interruption, and rank as `eval` does."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from benchmarks.lab.frontier import accuracy
from benchmarks.lab.frontier.accuracy import Known, accuracies, evaluated
from benchmarks.lab.frontier.grid import DESCRIPTORS, SIDES_PX, sides
from benchmarks.lab.frontier.pictures import Picture
from benchmarks.lab.frontier.scores import Setting, Work
from benchmarks.lab.frontier.stopping import pairs
from cvnet_engine.benchmarks.accuracy.databases import Database
from cvnet_engine.benchmarks.accuracy.dataset import Dataset, GroundTruth
from cvnet_engine.benchmarks.accuracy.evaluation import QueryEntries, Task, evaluate
from cvnet_engine.benchmarks.accuracy.journal import Journal
from cvnet_engine.engine.errors import DatasetError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.retrieval.searcher import Plan
from tests.benchmarks.lab.frontier.fakes import FakeEngineCache
from tests.pictures import photo

TRUTH = GroundTruth((0, 0, 130, 125), easy=np.array([1]), hard=np.array([2, 4]), junk=np.array([0]))
IMAGES = 5


@pytest.fixture
def setting(tmp_path):
    paths = tuple(photo(tmp_path / f"{row}.png", 140, 200, seed=row) for row in range(IMAGES + 1))
    dataset = Dataset("small", paths[:IMAGES], paths[IMAGES:], (TRUTH,))
    return Setting(dataset, 160, "fp32", ("float16", "coded:8"), "model fp32")


def test_sides_that_change_nothing_are_left_out():
    assert sides(1024) == SIDES_PX
    assert sides(480) == (384, 512)
    assert sides(320) == (384,)
    assert sides(2000) == SIDES_PX


def test_a_query_is_cropped_to_its_box_and_shrunk_then(tmp_path):
    path = photo(tmp_path / "0.png", 100, 200)
    picture = Picture(path, (20.0, 10.0, 180.0, 90.0), 100)
    assert picture.read().shape == (50, 100, 3)
    assert picture.size == (50, 100)
    assert Picture(path, (20.0, 10.0, 80.0, 90.0), 100).size == (80, 60)
    assert Picture(path, None, 100).size == (50, 100)


def whole_of(work, setting):
    """Every point of a setting, by descriptor and maps."""
    return {
        (descriptor, maps): dict(accuracies(work, setting, descriptor, maps))
        for descriptor, maps in product(DESCRIPTORS, setting.maps)
    }


def test_a_descriptor_and_maps_are_done_when_nothing_of_them_lacks(setting):
    with Journal(None) as journal:
        work = Work(journal, FakeEngineCache(), 50)
        for step in work.left(setting):
            if "superglobal" not in step.name and "coded:8" not in step.name:
                step.run()
        done = {(d, m): work.has(setting, d, m) for d, m in product(DESCRIPTORS, setting.maps)}
        assert [combination for combination, whole in done.items() if whole] == [("cvnet", "float16")]


def test_work_goes_on_where_it_was_stopped_and_is_done_once(setting):
    with Journal(None) as journal:
        whole, first, second = FakeEngineCache(), FakeEngineCache(), FakeEngineCache()
        steps = list(Work(journal, first, 50).left(setting))
        assert len(steps) == 2 * (IMAGES + 1) + 2
        for step in steps[: IMAGES + 3]:
            step.run()
        left = list(Work(journal, second, 50).left(setting))
        assert len(left) == len(steps) - (IMAGES + 3)
        for step in left:
            step.run()
        assert not list(Work(journal, second, 50).left(setting))
        figures = whole_of(Work(journal, second, 50), setting)
    with Journal(None) as journal:
        work = Work(journal, whole, 50)
        for step in work.left(setting):
            step.run()
        assert whole_of(work, setting) == figures
    assert tuple(map(sum, zip(first.runs, second.runs, strict=True))) == whole.runs


@pytest.mark.parametrize(("k", "needed"), [(1, 4), (4, 6), (6, 6)])
def test_pairs_that_a_search_needs_are_reckoned_from_the_scores(k, needed):
    """Batches of four: after the first the best final score is 1.4, more than 0.75 + 0.5."""
    similarities = np.array([0.95, 0.9, 0.85, 0.8, 0.75, 0.7], np.float32)
    database = np.stack([similarities, np.sqrt(1 - similarities**2)], axis=1)
    scores = np.array([0.9, 0.1, 0.1, 0.1, 0.1, 0.1], np.float32)
    query = Known(np.array([1, 0], np.float32), scores, scores, TRUTH)
    assert pairs(database, query, [(4, 4)] * 6, Plan(rerank=6), k) == needed


def test_points_of_work_that_is_not_done_are_an_error(setting):
    with Journal(None) as journal, pytest.raises(DatasetError, match="frontier score"):
        next(accuracies(Work(journal, FakeEngineCache(), 50), setting, "cvnet", "coded:8"))


class Recorded:
    """Engines that know every score: on pooled maps if given a collection of those."""

    def __init__(self, known):
        self.known = known

    def extract_from(self, _path, _box):
        return Features(self.known.descriptor, (np.zeros((256, 4, 4), np.float32),) * 3)

    def score_rows(self, _query, collection, rows):
        scores = self.known.pooled if hasattr(collection, "whole") else self.known.full
        return scores[list(rows)]


@pytest.mark.parametrize("method", ["cvnet", "superglobal", "both"])
@pytest.mark.parametrize("fine", [None, 0, 1])
def test_points_are_ranked_as_eval_ranks_them(setting, monkeypatch, method, fine):
    """Shortlists shorter than the database, so that each setup's own count matters."""
    monkeypatch.setattr(accuracy, "SHORTLISTS", (2, 3))
    monkeypatch.setattr(accuracy, "FINE", (None, 0, 1))
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((IMAGES + 1, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    full, pooled = rng.random((2, IMAGES)).astype(np.float32)
    known = Known(rows[-1], full, pooled, TRUTH)
    found = evaluated(rows[:IMAGES], [known])
    database = Database([Features(row, (np.zeros((256, 4, 4), np.float32),) * 3) for row in rows[:IMAGES]])
    with Journal(None) as journal:
        task = Task(setting.dataset, (2, 3), method=method, rerank_full=fine)
        (query,) = evaluate(task, database, lambda: Recorded(known), QueryEntries(task, "", journal)).queries
    fine = None if method == "superglobal" else fine
    for (k, setup), result in query.results.items():
        plan = Plan(rerank=k, method=method, rerank_full=fine) if k else Plan(rerank=0)
        assert found[plan][setup] == [100 * result.ap]
