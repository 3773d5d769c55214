"""A few hundred random and malformed feeds; `make native-check` tries ten thousand, for other processors too."""

import pytest

from cvnet_engine.engine.backends.native.engine import PRECISIONS
from cvnet_engine.engine.backends.native.library import library
from cvnet_engine.engine.geometry import MAP_DIM
from tests.engine.backends.native_fuzz import fuzzed


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dim", [MAP_DIM, pytest.param(64, marks=pytest.mark.slow)])
def test_every_feed_is_scored_rightly_or_refused(precision, dim):
    with fuzzed(precision, library(dim), dim, seed=1) as fuzz:
        for _ in range(100):
            fuzz.step()
    assert len(fuzz.outcomes) == (7 if dim == MAP_DIM else 8)  # every kind had its turn
