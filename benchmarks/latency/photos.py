"""Stand-ins for photographs, of any size, the same on every machine."""

from __future__ import annotations

import numpy as np

from cvnet_engine.engine.contract import Array

BLOCK_PX = 32


def photo(height: int, width: int, seed: int) -> Array:
    """A picture-like image (height, width, 3) uint8: coarse structure and grain."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (-(-height // BLOCK_PX), -(-width // BLOCK_PX), 3))
    coarse = np.kron(blocks, np.ones((BLOCK_PX, BLOCK_PX, 1)))[:height, :width]
    return np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255).astype(np.uint8)
