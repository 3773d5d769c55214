"""The accuracy report counts what reduced precision changes, and stops what changes too much."""

import re

import numpy as np
import pytest

from cvnet_engine.engine.errors import ExportError
from cvnet_engine.export.accuracy import measure, nearest_kept
from cvnet_engine.export.parity import Case


class Features:
    """Returns descriptor n for image n; maps say which image they are of."""

    def __init__(self, descriptors):
        self.descriptors = descriptors

    def run(self, feeds):
        n = int(feeds["image"][0])
        return {"descriptor": self.descriptors[n : n + 1], **{f"map_{s}": np.array([n]) for s in range(3)}}


class Reranker:
    """Scores 0.1 for each image that the query stands before, and `drift` more for the pair (1, 2)."""

    def __init__(self, drift=0.0):
        self.drift = drift

    def run(self, feeds):
        query, key = int(feeds["query_2"][0]), int(feeds["key_2"][0])
        return {"score": np.array([0.1 * query + self.drift * ((query, key) == (1, 2))])}


@pytest.fixture
def descriptors():
    vectors = np.random.default_rng(0).standard_normal((30, 2048)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def cases(descriptors):
    images = [Case({"image": np.array([n])}, {"descriptor": d[None]}) for n, d in enumerate(descriptors)]
    pairs = [Case({}, {"score": np.array([0.1 * n])}) for n in range(len(descriptors))]
    return {"features": images, "reranker": pairs}


def test_no_change(descriptors, cases):
    found = measure(Features(descriptors), Reranker(), cases, "int8")
    assert (found.images, found.nearest_kept) == (30, 1.0)
    assert found.descriptor_cosine == pytest.approx(1)
    assert found.score_drift == 0


def test_a_change_is_measured(descriptors, cases):
    changed = descriptors.copy()
    changed[4] = changed[5]
    found = measure(Features(changed), Reranker(0.003), cases, "int8")
    assert found.descriptor_cosine == pytest.approx(float(descriptors[4] @ descriptors[5]), abs=1e-6)
    assert found.score_drift == pytest.approx(0.003)
    assert 0.7 < found.nearest_kept < 1


@pytest.mark.parametrize(
    ("precision", "drift", "most"),
    [
        ("fp32", 0.02, "0.01"),
        ("bf16", 0.02, "0.01"),
        ("bf16", np.nan, "0.01"),
        ("int8", 0.12, "0.1"),
        ("int8", np.nan, "0.1"),
    ],
)
def test_a_score_that_drifts_is_refused(descriptors, cases, precision, drift, most):
    with pytest.raises(ExportError, match=rf"by up to .* expected at most {re.escape(most)} in {precision}"):
        measure(Features(descriptors), Reranker(drift), cases, precision)


def test_overlap_is_counted_without_the_image_itself():
    want = np.eye(4)[[0, 0, 1, 1]] + np.eye(4)[[2, 3, 2, 3]] * 0.1  # 0 and 1 are neighbours, 2 and 3
    assert nearest_kept(want, want) == 1
    assert nearest_kept(want[:1], want[:1]) == 1  # a single image has no neighbours to lose
