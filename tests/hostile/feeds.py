"""Feeds of the native pair scorer, laid out anyhow or malformed, as `tests.engine.backends.native_fuzz` makes them."""

from __future__ import annotations

import random
from pathlib import Path

from cvnet_engine.engine.backends.native.engine import PRECISIONS
from cvnet_engine.engine.backends.native.library import library
from tests.engine.backends.native_fuzz import fuzzed
from tests.hostile.trial import Case


class Feeds:
    def __init__(self, _: Path) -> None:
        library()  # compiled once, for all cases

    def make(self, rng: random.Random) -> Case:
        precision, seed = rng.choice(list(PRECISIONS)), rng.randrange(2**32)

        def read(_: Path) -> object:
            """The scores are right, and malformed feeds refused: anything else raises."""
            with fuzzed(precision, library(), seed) as fuzz:
                fuzz.step()
            return "as it should be"

        return Case("feeds: random and malformed", f"{precision}, seed {seed}", read, "as it should be")
