"""Every kind of pair is measured of every scene, and told with what 'gallery duplicates' would do."""

from __future__ import annotations

import numpy as np
import pytest

from cvnet_engine.benchmarks.accuracy import near_duplicates
from cvnet_engine.benchmarks.accuracy.near_duplicates import (
    ALTERATIONS,
    OTHER_SCENES,
    OTHER_VIEWS,
    Pair,
    markdown,
    measure,
    row,
)
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.duplicates import LEAST_SCORE, LEAST_SIMILARITY
from scenes import SceneSet


class ByColour:
    """Describes an image by its mean colour; pairs of equal colours score best."""

    def extract(self, image):
        colour = image.reshape(-1, 3).mean(axis=0)
        return Features(np.asarray(colour / np.linalg.norm(colour), np.float32), ())

    def score(self, query, keys):
        return np.array([query.descriptor @ key.descriptor for key in keys])


@pytest.fixture
def pairs(monkeypatch):
    small = SceneSet("small", seed=5, scenes=3, views=3, distractors=0, size=(96, 128))
    monkeypatch.setattr(near_duplicates, "SCENES", small)
    return measure(ByColour())


def test_pairs_of_every_kind(pairs):
    counts = {kind: len(found) for kind, found in pairs.items()}
    assert counts == dict.fromkeys(ALTERATIONS, 3) | {OTHER_VIEWS: 6, OTHER_SCENES: 3}
    assert all(pair.similarity == pytest.approx(pair.score) for found in pairs.values() for pair in found)
    assert min(pair.similarity for pair in pairs["JPEG at quality 40"]) > 0.999
    assert max(pair.similarity for pair in pairs[OTHER_SCENES]) < 0.99999  # never an image and itself


def test_what_is_altered_is_smaller_or_grey():
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    assert ALTERATIONS["half its size"](image).shape == (45, 60, 3)
    assert ALTERATIONS["cropped to 0.8"](image).shape == (72, 96, 3)
    grey = ALTERATIONS["grey"](image)
    assert np.array_equal(grey[..., 0], grey[..., 2])


def test_the_table():
    found = [Pair(LEAST_SIMILARITY, LEAST_SCORE), Pair(LEAST_SIMILARITY - 0.01, 1.0), Pair(1.0, LEAST_SCORE - 0.01)]
    assert [pair.is_taken for pair in found] == [True, False, False]
    cells = row("kind", [Pair(0.9, 0.5), Pair(1.0, 1.0), Pair(1.0, 0.8)])
    assert cells[:8] == ("kind", "3", "0.900", "1.000", "1.000", "0.500", "0.800", "1.000")
    head = {"machine": {"cpu": "a CPU"}, "date": "today", "command": "it", "model": "demo"}
    assert "| kind | 2 | 0.900 |" in markdown(head | {"pairs": {"kind": [(0.9, 0.5), (1.0, 1.0)]}})
