"""Photographs of scenes on disk, and where they show their façade."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import scenes
from training import photographs
from training.collages import SIDE_PX, collage
from training.views import project

FEW = scenes.SceneSet("few", seed=7, scenes=1, views=2, distractors=0, size=(96, 128))


def test_splits_share_no_building() -> None:
    seeds = [split.seed for split in (scenes.TRAINING, scenes.UNSEEN, scenes.VALIDATION, scenes.TEST, scenes.DEMO)]
    assert len(set(seeds)) == len(seeds)


def test_a_photograph_knows_where_its_facade_is(tmp_path: Path) -> None:
    photographs.write_scene(tmp_path, FEW, 0)
    first, second = photographs.read_scene(photographs.scene_file(tmp_path, 0))
    assert first.picture().shape in ((96, 128, 3), (128, 96, 3))
    assert not np.array_equal(first.jpeg, second.jpeg)
    scene, view = scenes.build_scene(FEW.seed, 0), scenes.choose_view(FEW.seed, 0, 0, FEW.size)
    x1, y1, x2, y2 = scenes.measure(scene, view, "").bbx
    inside = (0.5 * np.array([[1.0, 1.0]])) @ np.diag([1, scene.main.eaves_m / scene.main.height_m])
    ((x, y),) = project(first.to_picture, inside)
    assert x1 < x < x2
    assert y1 < y < y2
    height, width = first.seen.shape
    assert first.seen.any()
    assert (height * 8, width * 8) == first.picture().shape[:2]


def test_a_scene_that_is_there_is_not_rendered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs.write_scene(tmp_path, FEW, 0)
    monkeypatch.setattr(photographs, "photograph", None)
    photographs.write_scene(tmp_path, FEW, 0)


def test_collages_follow_from_their_numbers() -> None:
    one = collage(0, 1)
    assert one.shape == (SIDE_PX, SIDE_PX, 3)
    assert np.array_equal(one, collage(0, 1))
    assert not np.array_equal(one, collage(0, 2))
