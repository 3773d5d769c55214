"""Descriptors in blocks are indexed and searched like those of one array."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from cvnet_engine.engine.retrieval.blocks import Block, Descriptors
from cvnet_engine.engine.retrieval.search import DescriptorIndex

ROWS = np.random.default_rng(0).standard_normal((11, 2048)).astype(np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)
BOUNDS = (0, 3, 3, 4, 11)  # one of the blocks is empty


def blocks(halves: bool = False) -> list[Block]:
    parts = [ROWS[start:stop] for start, stop in pairwise(BOUNDS)]
    return [Block(part, part.astype(np.float16) if halves else None) for part in parts]


@pytest.mark.parametrize(
    "rows",
    [0, 10, -1, slice(None), slice(2, 9, 3), slice(5, 5), np.array([10, 0, 3, 3]), np.arange(11) % 2 == 0, [4, 2]],
)
def test_indexing_equals_that_of_an_array(rows):
    assert np.array_equal(Descriptors(blocks())[rows], ROWS[rows])


def test_a_collection_converts_to_an_array():
    descriptors = Descriptors(blocks())
    assert (len(descriptors), descriptors.shape) == (11, ROWS.shape)
    assert np.array_equal(np.asarray(descriptors), ROWS)
    with pytest.raises(IndexError):
        descriptors[11]


def test_a_row_is_checked_once_before_it_is_returned():
    seen: list[int] = []
    descriptors = Descriptors(blocks(), seen.append)
    descriptors[[7, 2]]
    descriptors[1:4]
    assert seen == [7, 2, 1, 3]

    def refuse(row: int) -> None:
        raise ValueError(row)

    for _ in range(2):
        with pytest.raises(ValueError, match="5"):
            Descriptors(blocks(), refuse)[5]


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("half_from", [0, 10**9])
@pytest.mark.parametrize("selection", [None, np.array([0, 2, 3, 9, 10])])
def test_a_search_over_blocks_equals_that_over_an_array(monkeypatch, halves, half_from, selection):
    monkeypatch.setattr("cvnet_engine.engine.retrieval.search.MARGIN", 1)
    found = DescriptorIndex(Descriptors(blocks(halves)), half_from).search(ROWS[9], 2, selection)
    expected = DescriptorIndex(ROWS, 10**9).search(ROWS[9], 2, selection)
    assert np.array_equal(found.rows, expected.rows)
    assert np.array_equal(found.similarities, expected.similarities)


def test_float16_values_that_are_nan_leave_no_row_out(monkeypatch):
    monkeypatch.setattr("cvnet_engine.engine.retrieval.search.MARGIN", 1)
    damaged = [Block(block.rows, np.full(block.rows.shape, np.nan, np.float16)) for block in blocks()]
    assert DescriptorIndex(Descriptors(damaged), 0).search(ROWS[9], 2).rows[0] == 9
