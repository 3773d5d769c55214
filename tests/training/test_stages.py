"""The stages of training, on a tiny network and a few collages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cvnet_engine.cvnet.reranker import CorrelationLearner
from cvnet_engine.engine.errors import WeightsError
from training import backbone, stages, verifier, whitening
from training.head_start import evidence, start_counting
from training.pairs import Pairs, subjects_of_collages
from training.slim import Stage, Widths, slim_model

TINY = Widths(stem=8, stages=(Stage(8, 16, 1), Stage(8, 16, 1), Stage(8, 24, 6), Stage(8, 32, 1)), descriptor=16)
FIRST = backbone.Recipe(widths=TINY, steps=3, processes=1, batch=2, warm_up=1)
LAST = verifier.Recipe(
    widths=TINY, sizes=((96, 128), (128, 96)), steps=2, warm_up=1, most_alike=2, samples=1, processes=1
)
SIZE = (80, 96)  # px: a map of 5 x 6


@pytest.fixture(scope="module")
def collages():
    return subjects_of_collages(0, 4)


@pytest.fixture(autouse=True)
def _seeded_and_same_threads():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def unit(*shape: int) -> torch.Tensor:
    """Return random vectors along the second axis, L2-normalised."""
    return F.normalize(torch.randn(shape), dim=1)


def interrupt_at(step, monkeypatch):
    """Save every step, and stop after this one."""
    monkeypatch.setattr(stages, "SAVED_EVERY", 1)
    save = stages.Progress.save

    def save_and_stop(progress):
        save(progress)
        if progress.step == step:
            raise InterruptedError

    monkeypatch.setattr(stages.Progress, "save", save_and_stop)


def test_an_interrupted_stage_resumes_to_the_same_weights(collages, tmp_path, monkeypatch):
    pairs = Pairs(0, (collages,), FIRST.batch)
    backbone.train(0, FIRST, pairs, tmp_path / "whole", workers=0)
    with monkeypatch.context() as patch:
        interrupt_at(2, patch)
        with pytest.raises(InterruptedError):
            backbone.train(0, FIRST, pairs, tmp_path / "stopped", workers=0)
    backbone.train(0, FIRST, pairs, tmp_path / "stopped", workers=0)
    whole, stopped = (stages.read(tmp_path / folder, "backbone") for folder in ("whole", "stopped"))
    for name, tensor in whole.items():
        torch.testing.assert_close(stopped[name], tensor, msg=name)
    torch.manual_seed(FIRST.seed)
    untrained = slim_model(TINY).state_dict()
    assert not torch.equal(whole["backbone.trunk.conv1.weight"], untrained["backbone.trunk.conv1.weight"])
    with pytest.raises(WeightsError, match="another recipe"):
        backbone.train(0, replace(FIRST, rate=1.0), pairs, tmp_path / "whole", workers=0)


def test_a_stage_that_was_not_run_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"training\.backbone first"):
        verifier.load(tmp_path, TINY)


def test_contrast_is_least_in_the_right_order_without_void_pairs():
    rows = unit(6, 16)
    assert backbone.contrast(rows, rows) < backbone.contrast(rows, rows.roll(1, 0))
    doubled = torch.cat([rows, rows[:1]])  # the last equals the first
    void = torch.zeros(7, 7, dtype=torch.bool)
    void[0, 6] = void[6, 0] = True
    assert backbone.contrast(doubled, doubled, void) < backbone.contrast(doubled, doubled)


def test_features_are_sampled_at_sixteen_pixels_per_position():
    features = unit(2, 8, 5, 6)
    found = backbone.sample(features, torch.tensor([[[32.0, 48.0], [80.0, 0.0]]] * 2), SIZE)  # (x, y)
    torch.testing.assert_close(found[:, 0], features[:, :, 3, 2])
    torch.testing.assert_close(found[:, 1], features[:, :, 0, 5])
    ramp = torch.stack(torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij"))[None] + 1
    small = F.interpolate(ramp, (3, 4), mode="bilinear", align_corners=True)
    points = torch.tensor([[[40.0, 24.0]]])
    torch.testing.assert_close(backbone.sample(small, points, SIZE), backbone.sample(ramp, points, SIZE))


def test_neighbours_of_one_pair_are_void_and_others_are_not():
    points = torch.tensor([[[[0.0, 0], [10, 0], [60, 0]], [[0, 0], [40, 0], [70, 0]]]] * 2)  # (2, 2, 3, 2)
    void = backbone.too_near(points, torch.ones(2, 3, dtype=torch.bool))
    assert void[:3, :3].tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    assert not void[:3, 3:].any()


def test_missing_points_do_not_change_the_loss():
    points = torch.rand(2, 2, 4, 2) * 70 + 4
    some = torch.cat([points, torch.full((2, 2, 3, 2), torch.nan)], dim=2)
    maps = unit(2, 8, 5, 6), unit(2, 8, 5, 6)
    torch.testing.assert_close(backbone.local_contrast(*maps, some, SIZE), backbone.local_contrast(*maps, points, SIZE))


def test_whitening_evens_out_what_differs_within_scenes():
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(400, 1, 3)) + rng.normal(size=(400, 4, 3)) * [1.0, 0.3, 0.1]
    by = whitening.whitening(descriptors)
    centred = descriptors - descriptors.mean(1, keepdims=True)
    before, after = (np.ptp(np.log(x.std(axis=(0, 1)))) for x in (centred, centred @ by))
    assert after < before / 2
    layer, inputs = torch.nn.Linear(5, 3), torch.randn(2, 5)
    want = layer(inputs).detach() @ torch.from_numpy(by).float().T
    whitening.whiten(layer, by)
    torch.testing.assert_close(layer(inputs).detach(), want)


def test_wrong_keys_are_the_most_similar_images_of_others():
    descriptors = np.array([(1, 0), (0.9, 0.1), (0.8, 0.2), (0, 1)])
    assert verifier.nearest(descriptors @ descriptors.T, np.array([0, 0, 1, 2]), 1).ravel().tolist() == [2, 2, 0, 2]


def test_the_last_stage_trains_every_weight_of_the_head_only(collages, tmp_path):
    model = slim_model(TINY)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stages.write(tmp_path / "backbone.pt", {"model": model.state_dict()})
    kept = verifier.describe(verifier.load(tmp_path, TINY), collages, LAST)
    assert kept.positives[:4] == [[1], [0], [3], [2]]
    verifier.train(0, LAST, verifier.load(tmp_path, TINY), kept, tmp_path)
    for name, tensor in verifier.load(tmp_path, TINY).state_dict().items():
        assert torch.equal(tensor, before[name]) != name.startswith("reranker.learner"), name


def test_matches_vote_together_if_they_moved_alike():
    query, key = unit(1, 256, 12, 16)[0], unit(1, 256, 14, 18)[0]
    key[:, 3:9, 5:14] = query[:, 1:7, 2:11]  # 54 positions, all by (2, 3)
    assert verifier.votes(query, key) == pytest.approx(54, rel=0.1)
    assert verifier.votes(query, query) == pytest.approx(12 * 16, rel=1e-4)
    scattered = query.flatten(1)[:, torch.randperm(12 * 16)].view(256, 12, 16)
    assert verifier.votes(query, scattered) < 25
    smaller, larger = unit(1, 256, 10, 10)[0], unit(1, 256, 20, 20)[0]
    larger[:, ::2, ::2] = smaller
    assert verifier.votes(smaller, larger) == pytest.approx(100, rel=0.1)


def test_the_target_is_one_half_at_an_even_number_of_votes():
    few, even, many = (unit(1, 256, 4, width) for width in (5, 11, 25))
    assert verifier.target(few, few) < -1
    assert verifier.target(even, even) == pytest.approx(0, abs=1e-3)  # 44 matches
    assert verifier.target(many, many) > 1


def test_the_loss_is_least_at_the_target_logits():
    targets = torch.tensor([-4.0, 0.0, 5.0])
    right = torch.stack([torch.zeros(3), targets], dim=1).requires_grad_()
    verifier.imitation_loss(right, targets).backward()
    assert right.grad is not None
    assert right.grad.abs().max() < 1e-6
    assert verifier.imitation_loss(right + torch.tensor([0.5, 0.0]), targets) > verifier.imitation_loss(right, targets)


def test_the_head_put_back_scores_as_in_factored_form():
    model = slim_model(TINY).eval()
    head = verifier.head_of(model)
    with torch.no_grad():
        head.over_query.weight.normal_()
        feature_map = model(torch.randn(2, 3, 80, 96))[1]
        unit_maps = verifier.UnitMaps(model.reranker)(feature_map)
        factored = head(*(m[:1] for m in unit_maps), *(m[1:] for m in unit_maps))[0]
        verifier.put_back(head, model)
        torch.testing.assert_close(model.reranker(feature_map[:1], feature_map[1:]), factored, atol=1e-5, rtol=0)


def test_the_head_starts_by_counting_matches_that_lie_together():
    learner = CorrelationLearner()
    background = torch.rand(1, 9, 12, 12, 12, 12) ** 4
    shifted, scattered = background.clone(), background.clone()
    shifted.view(1, 9, 144, 144)[:, :, range(144), range(144)] = 2
    scattered.view(1, 9, 144, 144)[:, :, range(144), torch.randperm(144)] = 2
    start_counting(learner, [background, shifted])
    with torch.no_grad():
        conv, norm = learner.block1[:2]
        before, after = (x[:, evidence(16)] for x in (conv(background), norm(conv(background))))
        assert (after - before).std() < 0.1 * before.std()
        counts = []
        for x in (background, scattered, shifted):
            for block in (learner.block1, learner.block2, learner.block3, learner.block4):
                x = block(x)
            counts.append(float(x[:, evidence(128)].mean()))
    assert counts == sorted(set(counts))
