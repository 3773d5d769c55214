"""A ranking's rows as hits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cvnet_engine.engine.retrieval.ranking import Ranking, hits

PATHS = [Path(f"/{row}.jpg") for row in range(4)]


def test_hits_say_what_is_known_of_each_image():
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


def test_an_image_that_was_in_no_earlier_order():
    ranking = Ranking.by_similarity(np.array([0.1, 0.4], np.float32)).refined_by(np.array([0.2, 0.9], np.float32))
    first, second = hits(ranking, [1], PATHS)
    assert (first.row, first.before) == (0, None)
    assert (second.row, second.before) == (1, 1)
    np.testing.assert_allclose((first.refined, first.score), (0.9, 0.9), rtol=1e-6)
