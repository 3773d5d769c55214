"""Training data: photographs of scenes, collages, and pairs of crops with their correspondences."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import scenes
from cvnet_engine.engine.errors import DatasetError
from training import photographs, views
from training.collages import SIDE_PX, collage
from training.pairs import Pairs, subjects_of_collages
from training.views import POINTS, Source, Warps, make_pair

SIZE = (96, 128)
FEW = scenes.SceneSet("few", seed=7, scenes=1, views=2, distractors=0, size=SIZE)


def gradient(height: int, width: int) -> np.ndarray:
    """Return an image whose colours show the position: blue along x, green along y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, 0 * x], 2).astype(np.uint8)


def source(height: int, width: int) -> Source:
    whole = np.diag([width - 1.0, height - 1.0, 1.0])
    return Source(gradient(height, width), whole, np.ones((height // 8, width // 8), bool))


def test_splits_share_no_building():
    seeds = [split.seed for split in (scenes.TRAINING, scenes.UNSEEN, scenes.VALIDATION, scenes.TEST, scenes.DEMO)]
    assert len(set(seeds)) == len(seeds)


def test_a_photograph_knows_where_its_facade_is(tmp_path, monkeypatch):
    photographs.write_scene(tmp_path, FEW, 0)
    monkeypatch.setattr(photographs, "photograph", None)
    photographs.write_scene(tmp_path, FEW, 0)  # is not rendered again
    ((first, second),) = photographs.subjects_of_scenes(tmp_path, 1)
    assert first.picture.shape in ((96, 128, 3), (128, 96, 3))
    assert not np.array_equal(first.picture, second.picture)
    scene, view = scenes.build_scene(FEW.seed, 0), scenes.choose_view(FEW.seed, 0, 0, SIZE)
    x1, y1, x2, y2 = scenes.measure(scene, view, "").bbx
    middle = np.array([[0.5, 0.5 * scene.main.eaves_m / scene.main.height_m]])
    ((x, y),) = views.project(first.to_picture, middle)
    assert x1 < x < x2
    assert y1 < y < y2
    height, width = first.seen.shape
    assert first.seen.any()
    assert (height * 8, width * 8) == first.picture.shape[:2]


def test_scenes_that_are_not_rendered_are_named(tmp_path):
    with pytest.raises(DatasetError, match=r"2 of 2 training scenes missing.*training\.photographs"):
        photographs.subjects_of_scenes(tmp_path, 2)


def test_a_collage_depends_on_its_number_only():
    one = collage(0, 1)
    assert one.shape == (SIDE_PX, SIDE_PX, 3)
    assert np.array_equal(one, collage(0, 1))
    assert not np.array_equal(one, collage(0, 2))


def test_a_batch_depends_on_its_step_only():
    pairs = Pairs(0, (subjects_of_collages(0, 3),), 2)
    crops, points = pairs[0]
    assert crops.shape[:2] == (2, 2)
    assert points.shape == (2, 2, POINTS, 2)
    assert np.array_equal(crops, pairs[0][0])
    assert np.array_equal(points, pairs[0][1], equal_nan=True)
    assert not np.array_equal(crops, pairs[3][0])  # of the same size


def test_corresponding_points_show_the_same(monkeypatch):
    monkeypatch.setattr(views, "develop", lambda _, picture: picture)
    sources = source(240, 320), source(360, 240)
    crops, points = make_pair(np.random.default_rng(0), sources, SIZE, Warps(zoom=(0.6, 1.2)))
    assert crops.shape == (2, *SIZE, 3)
    points = points[:, np.isfinite(points[0, :, 0])]
    assert points.shape[1] > POINTS // 2
    assert (points > 0).all()
    assert (points < (SIZE[1], SIZE[0])).all()
    x, y = np.round(points).astype(int).transpose(2, 0, 1)  # (2, N) of both crops
    first, second = (crop[v, u, :2].astype(int) for crop, u, v in zip(crops, x, y, strict=True))
    assert np.abs(first - second).max() <= 6
    assert np.ptp(first, axis=0).min() > 20


def test_hidden_parts_are_not_visible_and_not_common():
    picture, whole = np.zeros((80, 80, 3), np.uint8), np.diag([80.0, 80.0, 1.0])
    columns = np.arange(10) < 5, np.arange(10) > 4, np.ones(10, bool)
    left, right, all_of_it = (Source(picture, whole, np.tile(seen, (10, 1))) for seen in columns)
    points = np.array([(0.2, 0.5), (0.8, 0.5), (1.2, 0.5)])
    assert views.visible(left, points).tolist() == [True, False, False]
    assert not views.common(left, right)
    assert views.common(left, all_of_it)


def test_developing_keeps_the_size_and_changes_the_image():
    picture = cv2.resize(gradient(60, 80), SIZE[::-1])
    for seed in range(8):
        developed = views.develop(np.random.default_rng(seed), picture)
        assert developed.shape == picture.shape
        assert developed.dtype == np.uint8
        assert not np.array_equal(developed, picture)
