"""The work of an evaluation, counted before it starts."""

from dataclasses import replace

import numpy as np
import pytest

from cvnet_engine.benchmarks.accuracy.dataset import Dataset, GroundTruth
from cvnet_engine.benchmarks.accuracy.projection import Rates, Workload, most_pairs, query_size, workload
from cvnet_engine.benchmarks.latency import costs
from tests.pictures import photo

TRUTH = GroundTruth((10.5, 0, 500, 30), easy=np.arange(2), hard=np.arange(2, 5), junk=np.array([5]))


@pytest.fixture
def dataset(tmp_path):
    images = tuple(photo(tmp_path / f"{row}.jpg", 64, 80, row) for row in range(9))
    return Dataset("d", images[:8], images[8:], (TRUTH,))


def test_pairs_overlap_but_for_what_each_setup_leaves_out():
    assert most_pairs(TRUTH, images=100, longest=20) == 23
    assert most_pairs(TRUTH, images=10, longest=20) == 9
    assert most_pairs(TRUTH, images=100, longest=0) == 0


def test_a_query_is_measured_as_it_is_cropped(dataset):
    assert query_size(dataset.queries[0], TRUTH) == (30, 70)
    assert query_size(dataset.queries[0], replace(TRUTH, bbx=None)) == (64, 80)


def test_what_is_left_is_counted(dataset):
    work = workload(dataset, dataset.images[:3], [0], 4)
    assert work == Workload(4, 3 * 64 * 80 + 30 * 70, 7, pytest.approx(7 * costs.pair((30, 70), (64, 80)).flop))
    assert workload(dataset, [], [], 4) == Workload(0, 0, 0, 0)
    assert Rates(pixel=2.0, pair_flop=0.5).seconds(Workload(1, 10, 3, 8)) == 24
