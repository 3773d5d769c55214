"""Results that show what a better one shows already: the same photo again, told by descriptors alone."""

from __future__ import annotations

import numpy as np

from cvnet_engine.engine.contract import Array

# Similarity of near-identical photos. The demonstration model, 45 landmarks of 320 px: a photo and itself compressed,
# brightened or cropped to 0.95 of its sides, 0.95 and more; two different photos of one building, 0.90 and less.
NEAR_IDENTICAL = 0.95


def firsts_of_a_kind(descriptors: Array) -> Array:
    """For each result the place (k,) int64 of the best one that is near-identical to it: its own where none is better.

    Args:
        descriptors: (k, 2048) float32, unit norm, best result first.
    """
    alike = descriptors @ descriptors.T >= NEAR_IDENTICAL
    firsts = np.full(len(descriptors), -1)
    for place in range(len(descriptors)):
        if firsts[place] < 0:  # what has its place under a better one gathers none of its own
            firsts[alike[place] & (firsts < 0)] = place
    return firsts
