"""Exact global search: the fast scan does not change the ranking."""

from __future__ import annotations

import numpy as np
import pytest

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.retrieval.search import DescriptorIndex, similarities

NEVER = 10**9


def unit(rows: Array) -> Array:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def collection(kind: str, n: int) -> tuple[Array, Array]:
    """`n` descriptors and a query."""
    rng = np.random.default_rng(n)
    match kind:
        case "random":
            rows = unit(rng.standard_normal((n, 2048)))
            return rows, rows[n // 2]
        case "clustered":
            centre = unit(rng.standard_normal(2048))
            rows = unit(centre + 2e-6 * rng.standard_normal((n, 2048)))
            query = unit(centre + 0.01 * rng.standard_normal(2048))
            assert np.ptp(rows @ query) < 1e-4
            return rows, query
        case _:
            rows = unit(rng.standard_normal((n // 5 + 1, 2048)))[rng.integers(0, n // 5 + 1, n)]
            return rows, unit(rows[0] + 0.05 * rng.standard_normal(2048))


def brute_force(rows: Array, query: Array, k: int) -> tuple[Array, Array]:
    """Rows by descending similarity, ties by row number, with plain loops."""
    scores = similarities(rows, query)
    order = sorted(range(len(rows)), key=lambda row: (-scores[row], row))[:k]
    return np.array(order), scores[order]


@pytest.mark.parametrize("half_from", [0, NEVER])
@pytest.mark.parametrize("k", [1, 10, 100, 5000])
@pytest.mark.parametrize("n", [1, 7, 1003])
@pytest.mark.parametrize("kind", ["random", "clustered", "duplicates"])
def test_the_ranking_equals_brute_force(kind, n, k, half_from):
    rows, query = collection(kind, n)
    ranking = DescriptorIndex(rows, half_from).search(query, k)
    expected_rows, expected = brute_force(rows, query, k)
    assert np.array_equal(ranking.rows, expected_rows)
    assert np.array_equal(ranking.similarities, expected)
    assert np.isnan(ranking.pair_scores).all()
    assert np.allclose(expected, (rows.astype(np.float64) @ query)[expected_rows], atol=1e-6)


@pytest.mark.parametrize("half_from", [0, NEVER])
def test_few_rows_are_rescored_if_similarities_are_spread(half_from):
    rows, query = collection("random", 3000)
    candidates = DescriptorIndex(rows, half_from)._candidates(query, 10)
    assert len(candidates) < 200


def test_equal_rows_have_equal_similarities_anywhere():
    row, query = unit(np.random.default_rng(0).standard_normal((2, 2048)))
    for n in range(1, 40):
        assert len(set(similarities(np.tile(row, (n, 1)), query).tolist())) == 1


def test_a_selection_is_searched_like_a_collection_of_it():
    rows, query = collection("duplicates", 1003)
    some = np.arange(3, 1003, 7)
    ranking, alone = DescriptorIndex(rows).search(query, 20, some), DescriptorIndex(rows[some]).search(query, 20)
    assert np.array_equal(ranking.rows, some[alone.rows])
    assert np.array_equal(ranking.similarities, alone.similarities)
    assert len(DescriptorIndex(rows).search(query, 20, some[:0]).rows) == 0
