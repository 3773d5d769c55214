"""Near-duplicates are found whatever block they fall in, scored no more than needed, and grouped."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery import duplicates
from cvnet_engine.engine.gallery.duplicates import identical, near, similar


def descriptors(count: int, dim: int = 2048) -> Array:
    """Random unit vectors (count, dim) float32, none like another."""
    rows = np.random.default_rng(0).standard_normal((count, dim), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


@dataclass
class Scored:
    """Stands in for a collection and for its engines: `scores` are of pairs of rows, 1 where not given."""

    descriptors: Array
    scores: dict[tuple[int, int], float] = field(default_factory=dict)
    pairs: list[tuple[int, int]] = field(default_factory=list)

    def features(self, row: int) -> Features:
        return Features(np.array([row]), ())

    def score_rows(self, query: Features, _: object, rows: Sequence[int]) -> Array:
        one = int(query.descriptor[0])
        self.pairs += [(one, row) for row in rows]
        return np.array([self.scores.get((one, row), 1.0) for row in rows], np.float32)


def groups(scored: Scored, rows: Sequence[int] | None = None) -> list[tuple[int, ...]]:
    chosen = np.array(range(len(scored.descriptors)) if rows is None else rows)
    return [group.rows for group in near(scored, chosen, scored, 0.9, 0.5)]


def copy(rows: Array, *pairs: tuple[int, int]) -> Array:
    """Each second row of the pairs becomes like the first."""
    rows = rows.copy()
    for one, other in pairs:
        rows[other] = rows[one] + 0.01 * rows[other]
        rows[other] /= np.linalg.norm(rows[other])
    return rows


def test_identical_files():
    assert identical(["a", "b", "a", "c", "b", "a"]) == [(0, 2, 5), (1, 4)]
    assert identical([]) == []


@pytest.mark.parametrize(("block", "tile"), [(1, 1), (3, 5), (4, 4), (7, 2), (64, 64)])
def test_pairs_are_those_of_the_whole_matrix_whatever_the_blocks(monkeypatch, block, tile):
    monkeypatch.setattr(duplicates, "BLOCK", block)
    monkeypatch.setattr(duplicates, "TILE", tile)
    rows = descriptors(23, dim=3)
    chosen = np.array([row for row in range(23) if row % 5])
    found = {
        (first + place, int(other))
        for first, alike in similar(rows, chosen, 0.5)
        for place, (others, _) in enumerate(alike)
        for other in others
    }
    products = rows[chosen] @ rows[chosen].T
    assert found == set(zip(*map(np.ndarray.tolist, np.nonzero(np.triu(products >= 0.5, 1))), strict=True))
    assert len(found) > 20


def test_the_most_similar_come_first():
    ((_, alike),) = similar(descriptors(50, dim=3), np.arange(50), 0.2)
    assert all((np.diff(similarities) <= 0).all() for _, similarities in alike)


def test_groups_are_chains_of_confirmed_pairs():
    rows = copy(descriptors(12), (0, 3), (3, 7), (1, 11), (5, 6))
    scored = Scored(rows, scores={(5, 6): 0.49})
    (first, second) = near(scored, np.arange(12), scored, 0.9, 0.5)
    assert (first.rows, second.rows) == ((0, 3, 7), (1, 11))
    assert [(match.one, match.other, match.score) for match in first.matches] == [(0, 3, 1.0), (0, 7, 1.0)]
    assert first.matches[0].similarity == pytest.approx(rows[0] @ rows[3])


def test_rows_that_are_not_asked_for_are_left_alone():
    scored = Scored(copy(descriptors(9), (0, 1), (1, 2), (4, 8)))
    assert groups(scored, [0, 2, 3, 4]) == [(0, 2)]
    assert scored.pairs == [(0, 2)]


def test_a_series_is_scored_once_an_image_not_once_a_pair():
    scored = Scored(copy(descriptors(60), *((0, row) for row in range(1, 60))))
    assert groups(scored) == [tuple(range(60))]
    assert len(scored.pairs) == 59


def test_two_groups_join_where_a_later_pair_is_confirmed():
    rows = copy(descriptors(6), (0, 1), (1, 2), (1, 3))
    scored = Scored(rows, scores={(0, 1): 0.0, (0, 2): 0.0})
    assert groups(scored) == [(0, 1, 2, 3)]
    assert (1, 3) in scored.pairs


def test_progress_is_told_in_rows():
    told: list[int] = []
    scored = Scored(descriptors(600))
    near(scored, np.arange(600), scored, done=told.append)
    assert sum(told) == 600


def test_no_matrix_of_all_pairs_is_made():
    rows = copy(descriptors(7000, dim=64), (5, 6999))
    tracemalloc.start()
    found = sum(len(others) for _, alike in similar(rows, np.arange(7000), 0.99) for others, _ in alike)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == 1
    assert peak < 50e6  # all products would be 196 MB
