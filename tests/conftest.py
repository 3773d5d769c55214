"""Fixtures shared by the whole suite: the seeded models and the golden outputs of the published code."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from cvnet import checkpoint
from cvnet.model import CVNet
from tests.golden_inputs import GOLDEN


@pytest.fixture(scope="session")
def seeded_model() -> Callable[[int], CVNet]:
    """depth -> the seeded model, seed 0, loaded once."""
    return cache(lambda depth: checkpoint.load("seeded:0", depth))


@pytest.fixture(scope="session")
def golden() -> Callable[[int], dict[str, np.ndarray]]:
    """depth -> outputs of the published code on the seeded model."""
    return cache(lambda depth: dict(np.load(GOLDEN / f"cvnet_r{depth}_seed0.npz")))
