"""Both stages of training, on a tiny network and a few collages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cvnet_engine.cvnet.reranker import CorrelationLearner
from cvnet_engine.engine.errors import DatasetError, WeightsError
from training import backbone, checkpoints, verifier, whitening
from training.head_start import evidence, start_counting
from training.pairs import Pairs, Sources
from training.slim import Stage, Widths, slim_model
from training.views import POINTS, Source, common

TINY = Widths(stem=8, stages=(Stage(8, 16, 1), Stage(8, 16, 1), Stage(8, 24, 6), Stage(8, 32, 1)), descriptor=16)
FIRST = backbone.Recipe(widths=TINY, steps=3, processes=1, batch=2, warm_up=1)
LAST = verifier.Recipe(
    widths=TINY, sizes=((96, 128), (128, 96)), steps=2, warm_up=1, most_alike=2, samples=1, processes=1
)


@pytest.fixture(scope="module")
def collages() -> Sources:
    return Sources.of_collages(0, 4)


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch, stage: object) -> None:
    """Saves every step, and stops behind that one."""
    monkeypatch.setattr(stage, "SAVED_EVERY", 1)
    save = checkpoints.Progress.save

    def save_and_stop(progress: checkpoints.Progress) -> None:
        save(progress)
        if progress.step == step:
            raise InterruptedError

    monkeypatch.setattr(checkpoints.Progress, "save", save_and_stop)


def test_batches_follow_from_their_step(collages: Sources) -> None:
    pairs = Pairs(0, (collages,), 2, 3)
    crops, points = pairs[1]
    assert crops.shape[:2] == (2, 2)
    assert points.shape == (2, 2, POINTS, 2)
    assert np.array_equal(crops, pairs[1][0])
    assert not np.array_equal(crops, pairs[2][0].reshape(-1)[: crops.size].reshape(crops.shape))


def test_scenes_that_are_not_rendered_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"2 of 2 training scenes missing.*training\.photographs"):
        Sources.of_scenes(tmp_path, 2)


def test_pictures_of_different_parts_are_no_pair() -> None:
    picture, whole = np.zeros((80, 80, 3), np.uint8), np.diag([80.0, 80.0, 1.0])
    left, right, all_of_it = (np.tile(columns, (10, 1)) for columns in (np.arange(10) < 5, np.arange(10) > 4, True))
    seen = [Source(picture, whole, np.broadcast_to(mask, (10, 10))) for mask in (left, right, all_of_it)]
    assert not common(seen[0], seen[1])
    assert common(seen[0], seen[2])


def test_a_stopped_first_stage_goes_on_to_the_same_weights(
    collages: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = Pairs(0, (collages,), FIRST.batch, FIRST.steps)
    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
    backbone.train(0, FIRST, pairs, tmp_path / "whole", workers=0)
    with monkeypatch.context() as patch:
        interrupt_at(2, patch, backbone)
        with pytest.raises(InterruptedError):
            backbone.train(0, FIRST, pairs, tmp_path / "stopped", workers=0)
    backbone.train(0, FIRST, pairs, tmp_path / "stopped", workers=0)
    whole, stopped = (checkpoints.read(tmp_path / folder, "backbone") for folder in ("whole", "stopped"))
    for name, tensor in whole.items():
        torch.testing.assert_close(stopped[name], tensor, msg=name)
    torch.manual_seed(FIRST.seed)
    untrained = slim_model(TINY).state_dict()
    assert not torch.equal(whole["backbone.trunk.conv1.weight"], untrained["backbone.trunk.conv1.weight"])


def test_a_folder_of_another_recipe_is_refused(collages: Sources, tmp_path: Path) -> None:
    one_step = replace(FIRST, steps=1)
    backbone.train(0, one_step, Pairs(0, (collages,), 2, 1), tmp_path, workers=0)
    with pytest.raises(WeightsError, match="another recipe"):
        backbone.train(0, replace(one_step, rate=1.0), Pairs(0, (collages,), 2, 1), tmp_path, workers=0)


def test_wrong_keys_are_others_that_look_most_alike() -> None:
    descriptors = np.array([(1, 0), (0.9, 0.1), (0.8, 0.2), (0, 1)])
    assert verifier.nearest(descriptors @ descriptors.T, np.array([0, 0, 1, 2]), 1).ravel().tolist() == [2, 2, 0, 2]


def test_the_last_stage_trains_every_weight_of_the_head_and_no_other(collages: Sources, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = slim_model(TINY)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    checkpoints.write(tmp_path / "backbone.pt", {"model": model.state_dict()})
    kept = verifier.describe(verifier.load(tmp_path, TINY), collages.subjects, LAST)
    assert kept.positives[:4] == [[1], [0], [3], [2]]
    verifier.train(0, LAST, verifier.load(tmp_path, TINY), kept, tmp_path)
    for name, tensor in verifier.load(tmp_path, TINY).state_dict().items():
        assert torch.equal(tensor, before[name]) != name.startswith("reranker.learner"), name


def test_the_target_is_a_probability_of_one_half_where_the_teacher_is_undecided() -> None:
    torch.manual_seed(0)
    few, even, many = (torch.nn.functional.normalize(torch.randn(1, 256, 4, width), dim=1) for width in (5, 11, 25))
    assert verifier.target(few, few) < -1
    assert verifier.target(even, even) == pytest.approx(0, abs=1e-3)  # 44 matches
    assert verifier.target(many, many) > 1


def test_the_head_is_held_to_the_teachers_logits() -> None:
    targets = torch.tensor([-4.0, 0.0, 5.0])
    right = torch.stack([torch.zeros(3), targets], dim=1).requires_grad_()
    verifier.imitation_loss(right, targets).backward()
    assert right.grad is not None
    assert right.grad.abs().max() < 1e-6
    assert verifier.imitation_loss(right + torch.tensor([0.5, 0.0]), targets) > verifier.imitation_loss(right, targets)


def test_the_head_put_back_scores_as_it_did_in_factored_form() -> None:
    torch.manual_seed(0)
    model = slim_model(TINY).eval()
    head = verifier.head_of(model)
    with torch.no_grad():
        head.over_query.weight.normal_()
        feature_map = model(torch.randn(2, 3, 80, 96))[1]
        unit_maps = verifier.UnitMaps(model.reranker)(feature_map)
        factored = head(*(m[:1] for m in unit_maps), *(m[1:] for m in unit_maps))[0]
        verifier.put_back(head, model)
        torch.testing.assert_close(model.reranker(feature_map[:1], feature_map[1:]), factored, atol=1e-5, rtol=0)


def pooled(learner: CorrelationLearner, correlation: torch.Tensor) -> torch.Tensor:
    """What the head hands to its last layers, (128,)."""
    blocks = (learner.block1, learner.block2, learner.block3, learner.block4)
    for block in blocks:
        correlation = block(correlation)
    return correlation.mean(dim=(0, 2, 3, 4, 5))


def test_the_head_starts_as_a_counter_of_matches_that_lie_together() -> None:
    torch.manual_seed(0)
    learner = CorrelationLearner()
    background = torch.rand(1, 9, 12, 12, 12, 12) ** 4
    shifted, scattered = background.clone(), background.clone()
    places = torch.randperm(144)
    for n in range(144):
        shifted.view(1, 9, 144, 144)[:, :, n, n] = 2
        scattered.view(1, 9, 144, 144)[:, :, n, places[n]] = 2
    start_counting(learner, [background, shifted])

    with torch.no_grad():
        conv, norm = learner.block1[:2]
        before, after = (x[:, evidence(16)] for x in (conv(background), norm(conv(background))))
        assert (after - before).std() < 0.1 * before.std()
        none, some, all_together = (pooled(learner, x)[evidence(128)].mean() for x in (background, scattered, shifted))
    assert all_together > some > none


def test_whitening_evens_out_what_differs_within_scenes() -> None:
    rng = np.random.default_rng(0)
    scenes, spread = rng.normal(size=(400, 1, 3)), np.array([1.0, 0.3, 0.1])
    descriptors = scenes + rng.normal(size=(400, 4, 3)) * spread
    by = whitening.whitening(descriptors)
    within = (descriptors - descriptors.mean(1, keepdims=True)) @ by
    before, after = (
        np.ptp(np.log(x.std(axis=(0, 1)))) for x in (descriptors - descriptors.mean(1, keepdims=True), within)
    )
    assert after < before / 2
    layer = torch.nn.Linear(5, 3)
    inputs = torch.randn(2, 5)
    want = layer(inputs).detach() @ torch.from_numpy(by).float().T
    whitening.whiten(layer, by)
    torch.testing.assert_close(layer(inputs).detach(), want)


def test_a_stage_that_was_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"training\.backbone first"):
        verifier.load(tmp_path, TINY)
