"""A few hundred random and malformed feeds; `make native-check` tries ten thousand, for other processors too."""

import pytest

from cvnet_engine.engine.backends.native.engine import PRECISIONS
from cvnet_engine.engine.backends.native.library import library
from tests.engine.backends.native_fuzz import fuzzed


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_feed_is_scored_correctly_or_refused(precision):
    with fuzzed(precision, library(), seed=1) as fuzz:
        for _ in range(100):
            fuzz.step()
    assert len(fuzz.outcomes) == 7  # every kind was tried
