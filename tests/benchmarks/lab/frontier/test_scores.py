"""Stored scores are computed once, resume after an interruption, and rank as `eval` does."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.lab.frontier import grid, scores
from benchmarks.lab.frontier.accuracy import Known, accuracies, evaluated
from benchmarks.lab.frontier.grid import SIDES_PX, sides
from benchmarks.lab.frontier.scores import Picture, Setting, Work
from cvnet_engine.benchmarks.accuracy.databases import Database
from cvnet_engine.benchmarks.accuracy.dataset import Dataset, GroundTruth
from cvnet_engine.benchmarks.accuracy.evaluation import QueryEntries, Task, evaluate
from cvnet_engine.benchmarks.accuracy.journal import Journal
from cvnet_engine.engine.errors import DatasetError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.map_codecs import HalfCodec
from cvnet_engine.engine.retrieval.searcher import Plan
from tests.benchmarks.lab.frontier.fakes import FakeEngineCache
from tests.pictures import photo

TRUTH = GroundTruth((0, 0, 130, 125), easy=np.array([1]), hard=np.array([2, 4]), junk=np.array([0]))
IMAGES = 5


@pytest.fixture
def setting(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "fit_codec", lambda *_: HalfCodec())  # compressing takes seconds
    paths = tuple(photo(tmp_path / f"{row}.png", 140, 200, seed=row) for row in range(IMAGES + 1))
    dataset = Dataset("small", paths[:IMAGES], paths[IMAGES:], (TRUTH,))
    return Setting(dataset, 160, "fp32", ("float16", "coded:8"), "model fp32")


def test_sizes_that_change_nothing_are_left_out():
    assert sides(1024) == SIDES_PX
    assert sides(480) == (384, 512)
    assert sides(320) == (384,)
    assert sides(2000) == SIDES_PX


def test_query_is_cropped_to_its_box_and_then_shrunk(tmp_path):
    path = photo(tmp_path / "0.png", 100, 200)
    assert Picture(path, (20.0, 10.0, 180.0, 90.0), 100).read().shape == (50, 100, 3)
    assert Picture(path, (20.0, 10.0, 80.0, 90.0), 100).read().shape == (80, 60, 3)
    assert Picture(path, None, 100).read().shape == (50, 100, 3)


def test_interrupted_work_resumes_and_nothing_is_done_twice(setting):
    with Journal(None) as journal:
        whole, first, second = FakeEngineCache(), FakeEngineCache(), FakeEngineCache()
        steps = list(Work(journal, first).missing(setting))
        assert len(steps) == 2 * (IMAGES + 1) + 2
        for step in steps[: IMAGES + 3]:
            step()
        with pytest.raises(DatasetError, match="scores are missing"):
            dict(accuracies(Work(journal, second), setting))
        left = list(Work(journal, second).missing(setting))
        assert len(left) == len(steps) - (IMAGES + 3)
        for step in left:
            step()
        assert not list(Work(journal, second).missing(setting))
        figures = dict(accuracies(Work(journal, second), setting))
    with Journal(None) as journal:
        work = Work(journal, whole)
        for step in work.missing(setting):
            step()
        assert dict(accuracies(work, setting)) == figures
    assert tuple(map(sum, zip(first.runs, second.runs, strict=True))) == whole.runs


class Recorded:
    """Engines that know every score: on pooled maps if given a collection of those."""

    def __init__(self, known):
        self.known = known

    def extract_from(self, _path, _box):
        return Features(self.known.descriptor, (np.zeros((256, 4, 4), np.float32),) * 3)

    def score_rows(self, _query, collection, rows):
        scores = self.known.coarse if hasattr(collection, "whole") else self.known.full
        return scores[list(rows)]


@pytest.mark.parametrize("method", ["cvnet", "superglobal", "both"])
@pytest.mark.parametrize("rerank_full", [None, 0, 1])
def test_points_are_ranked_as_eval_ranks_them(setting, monkeypatch, method, rerank_full):
    """Shortlists shorter than the database, so that each setup's own count matters."""
    monkeypatch.setattr(grid, "SHORTLISTS", (2, 3))
    monkeypatch.setattr(grid, "RERANK_FULL", (None, 0, 1))
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((IMAGES + 1, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    full, coarse = rng.random((2, IMAGES)).astype(np.float32)
    known = Known(rows[-1], full, coarse, TRUTH)
    found = evaluated(rows[:IMAGES], [known])
    database = Database([Features(row, (np.zeros((256, 4, 4), np.float32),) * 3) for row in rows[:IMAGES]])
    with Journal(None) as journal:
        task = Task(setting.dataset, (2, 3), method=method, rerank_full=rerank_full)
        (query,) = evaluate(task, database, lambda: Recorded(known), QueryEntries(task, "", journal)).queries
    rerank_full = None if method == "superglobal" else rerank_full
    for (k, setup), result in query.results.items():
        plan = Plan(rerank=k, method=method, rerank_full=rerank_full) if k else Plan(rerank=0)
        assert found[plan][setup] == [100 * result.ap]
