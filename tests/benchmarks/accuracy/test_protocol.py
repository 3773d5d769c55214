"""The mAP protocol: against the published evaluation on the real ground truth, and by hand."""

import json

import numpy as np
import pytest

from cvnet_engine.benchmarks.accuracy.dataset import GroundTruth, parse, read_ground_truth
from cvnet_engine.benchmarks.accuracy.protocol import CUTOFFS, SETUPS, average_precision, judge, precision, summarise
from tests.golden_inputs import GOLDEN, SHARED

PUBLISHED = json.loads((GOLDEN / "map_protocol.json").read_text())


def rows(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize("case", sorted(PUBLISHED))
def test_published_protocol(case, tmp_path):
    """Random scores with a bonus for labelled images, ranked, as the golden file's maker did."""
    name, seed = case.split("/")
    source = SHARED / "data" / "gnd" / f"gnd_{name}.pkl"
    if not source.is_file():
        pytest.skip(f"needs the ground truth {source}")
    (tmp_path / source.name).write_bytes(source.read_bytes())
    truths = parse(read_ground_truth(tmp_path, name), tmp_path, name)
    n, nq = len(truths.images), len(truths.queries)
    score = np.random.default_rng(int(seed)).standard_normal((n, nq))
    for q, truth in enumerate(truths.ground_truth):
        for labelled, bonus in ((truth.easy, 2.0), (truth.hard, 1.0), (truth.junk, 1.5)):
            score[labelled, q] += bonus
    ranks = np.argsort(-score, axis=0, kind="stable")
    for setup in SETUPS:
        results = [judge(ranks[:, q], truth, setup) for q, truth in enumerate(truths.ground_truth)]
        means, want = summarise(results), PUBLISHED[case][setup]
        assert means["mAP"] == pytest.approx(want["mAP"], abs=1e-9)
        assert [means[f"mP@{k}"] for k in CUTOFFS] == pytest.approx(want["mP@1,5,10"], abs=1e-9)
        first = [result.ap for result in results[: len(want["ap_first5"])] if result]
        assert first == pytest.approx([ap for ap in want["ap_first5"] if ap == ap], abs=1e-9)


@pytest.mark.parametrize(
    ("ranks", "count", "want"),
    [
        ([0], 1, 1.0),
        ([1], 1, (0 + 1 / 2) / 2),
        ([0, 2], 2, (1 + (1 / 2 + 2 / 3) / 2) / 2),
        ([0], 2, 0.5),  # one of two relevant images never ranked
    ],
)
def test_average_precision(ranks, count, want):
    assert average_precision(rows(*ranks), count) == pytest.approx(want)


@pytest.mark.parametrize(
    ("ranks", "k", "want"),
    [([0, 3], 1, 1.0), ([1, 3], 1, 0.0), ([1, 3], 5, 2 / 4), ([1, 3, 9], 5, 2 / 5)],
)
def test_precision_stops_at_the_last_relevant_image(ranks, k, want):
    assert precision(rows(*ranks), k) == pytest.approx(want)


def test_setups_ignore_what_they_must():
    truth = GroundTruth((0, 0, 1, 1), easy=rows(1), hard=rows(2), junk=rows(0))
    ranking = rows(0, 2, 1, 3)
    assert judge(ranking, truth, "E").ap == 1.0  # junk and hard are taken out
    assert judge(ranking, truth, "M").ap == 1.0  # junk is taken out, both others count
    assert judge(ranking, truth, "H").ap == 1.0
    assert judge(rows(3, 2, 1, 0), truth, "M").ap == pytest.approx((1 / 4 + (1 / 2 + 2 / 3) / 2) / 2)


def test_queries_without_relevant_images_are_left_out():
    truth = GroundTruth((0, 0, 1, 1), easy=rows(), hard=rows(1), junk=rows())
    assert judge(rows(0, 1), truth, "E") is None
    assert np.isnan(summarise([None])["mAP"])
    assert summarise([None, judge(rows(1, 0), truth, "H")])["mAP"] == 1.0
