"""Images of a shortlist whose neighbours rounding cannot change."""

from __future__ import annotations

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.retrieval.superglobal import Refinement


def settled(shortlist: Array, how: Refinement, doubt: float) -> Array:
    """(M,) bool, of descriptors (M, D): whether the last neighbour is nearer than the next image by over `doubt`."""
    similarities = np.sort(shortlist @ shortlist.T, axis=1)
    return similarities[:, -how.neighbours - 1] - similarities[:, -how.neighbours - 2] > doubt
