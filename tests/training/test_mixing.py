"""Pair scores at coarse and full resolution, from which the weight of coarse scores is fitted."""

from __future__ import annotations

import numpy as np
import pytest

from cvnet_engine.benchmarks.accuracy.databases import Database
from cvnet_engine.benchmarks.accuracy.dataset import Dataset, GroundTruth
from cvnet_engine.benchmarks.accuracy.evaluation import extract_query
from cvnet_engine.engine.gallery.map_codecs import HalfCodec
from cvnet_engine.engine.retrieval.pooling import Pooled, pooled
from cvnet_engine.engine.retrieval.search import similarities
from tests.benchmarks.lab.frontier.fakes import FakeEngineCache
from tests.pictures import photo
from training import mixing

NONE = np.empty(0, np.int64)
TRUTH = GroundTruth((0.0, 0.0, 150.0, 130.0), np.array([0]), NONE, NONE)


@pytest.mark.parametrize("shortlist", [3, 100])
def test_pairs_are_those_of_each_shortlist(tmp_path, monkeypatch, shortlist):
    monkeypatch.setattr(mixing, "SHORTLIST", shortlist)
    paths = tuple(photo(tmp_path / f"{row}.png", 140, 200, seed=row) for row in range(6))
    dataset, engines = Dataset("small", paths[:4], paths[4:], (TRUTH, TRUTH)), FakeEngineCache().get("fp32", "cvnet")
    coarse, full = mixing.pair_scores(dataset, engines)
    assert len(coarse) == len(full) == 2 * min(shortlist, 4)
    database = Database.as_kept([engines.extract_from(path) for path in paths[:4]], HalfCodec())
    query = extract_query(engines, paths[5], TRUTH.bbx)
    last = int(np.argsort(-similarities(database.descriptors, query.descriptor))[min(shortlist, 4) - 1])
    assert full[-1] == engines.score_rows(query, database, [last])[0]
    assert coarse[-1] == engines.score_rows(pooled(query), Pooled(database), [last])[0]
