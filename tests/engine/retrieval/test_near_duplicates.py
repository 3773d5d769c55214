"""Near-identical results are gathered under the best of them."""

from __future__ import annotations

import numpy as np

from cvnet_engine.engine.geometry import DESCRIPTOR_DIM
from cvnet_engine.engine.retrieval.ranking import NEAR_DUPLICATE, near_duplicates

STEP = 0.9 * np.arccos(NEAR_DUPLICATE)  # an angle between near-identical descriptors; twice that is too far


def at(*angles: float) -> np.ndarray:
    """Unit descriptors (n, 2048) in one plane."""
    descriptors = np.zeros((len(angles), DESCRIPTOR_DIM), np.float32)
    descriptors[:, 0], descriptors[:, 1] = np.cos(angles), np.sin(angles)
    return descriptors


def test_near_identical_ones_are_under_the_best():
    assert near_duplicates(at(0, 1, STEP, 1 + STEP, 0)).tolist() == [0, 1, 0, 1, 0]


def test_no_chain_leads_from_one_photo_to_a_different_one():
    assert near_duplicates(at(0, STEP, 2 * STEP, 3 * STEP)).tolist() == [0, 0, 2, 2]
    assert near_duplicates(at(STEP, 0, 2 * STEP)).tolist() == [0, 0, 0]


def test_no_results():
    assert near_duplicates(at()).tolist() == []
