"""The comparison of descriptors: what is scored, how far two subjects are apart, and its table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvnet_engine.benchmarks.accuracy.dataset import Dataset, GroundTruth
from cvnet_engine.benchmarks.accuracy.descriptors import METHODS, Outcome, evaluated, table
from cvnet_engine.benchmarks.accuracy.protocol import SETUPS
from cvnet_engine.engine.features import Features
from tests.pictures import photo

TRUTH = GroundTruth((0, 0, 20, 20), easy=np.array([1]), hard=np.array([2]), junk=np.array([0]))


class FakeRetriever:
    """Images in the order of their names, each less like the query than the one before; pair scores by row."""

    def __init__(self):
        self.asked = []

    def extract_file(self, path):
        return self.described(1.0 - 0.1 * int(path.stem))

    def extract(self, _image):
        return self.described(1.0)

    def described(self, cosine):
        return Features(np.array([cosine, np.sqrt(1 - cosine**2)], np.float32), ())

    def score_rows(self, _query, _collection, rows):
        self.asked += rows
        return np.array([0.1 * row for row in rows], np.float32)


@pytest.fixture
def dataset(tmp_path):
    paths = tuple(photo(tmp_path / f"{row}.jpg") for row in range(6))
    return Dataset("small", paths[:5], paths[5:], (TRUTH,))


def test_a_pair_is_scored_once_whatever_wants_it(dataset):
    fake, pair_scores = FakeRetriever(), [{}]
    first = evaluated(dataset, fake, 2, pair_scores)
    assert sorted(fake.asked) == sorted(set(fake.asked)) == sorted(pair_scores[0])
    assert first.descriptors.shape == (6, 2)
    assert first.figures.keys() == {"global", *METHODS}
    assert all(figures.keys() == set(SETUPS) for figures in first.figures.values())
    again = FakeRetriever()
    assert evaluated(dataset, again, 2, pair_scores).figures == first.figures
    assert again.asked == []


def test_how_far_two_subjects_are_apart():
    one = Outcome(np.eye(2, dtype=np.float32), [{3: 0.5, 4: 0.5}], {"global": {"M": [50.0, 60.0]}})
    other = replace(one, pair_scores=[{3: 0.75}], figures={"global": {"M": [50.0, 58.0]}})
    assert one.apart(other) == {"descriptor": 0.0, "pair_score": 0.25, "ap": 2.0}
    assert one.apart(replace(one, descriptors=-one.descriptors))["descriptor"] == 2.0


def test_the_table_leaves_a_gap_for_what_has_not_been_run():
    figures = {"global": {setup: [50.0, 61.0] for setup in SETUPS}}
    rows = table({"engine": {"cvnet": figures, "superglobal": figures}, "PyTorch": {"cvnet": figures}}).rows
    assert rows[0] == ("CVNet", "global", *["55.5000"] * 6)
    assert rows[1] == ("SuperGlobal", "global", *["55.5000"] * 3, *[""] * 3)
