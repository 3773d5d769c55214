"""Crops and their correspondences."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from training import views
from training.views import POINTS, Source, Warps, make_pair

SIZE = (96, 128)


def gradient(height: int, width: int) -> np.ndarray:
    """A picture whose colours tell where one is: blue along x, green along y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, 0 * x], 2).astype(np.uint8)


def source(height: int, width: int) -> Source:
    whole = np.diag([width - 1.0, height - 1.0, 1.0])
    return Source(gradient(height, width), whole, np.ones((height // 8, width // 8), bool))


@pytest.fixture
def undeveloped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "develop", lambda _, picture: picture)


@pytest.mark.usefixtures("undeveloped")
def test_corresponding_points_show_the_same() -> None:
    pair = make_pair(np.random.default_rng(0), (source(240, 320), source(360, 240)), SIZE, Warps(zoom=(0.6, 1.2)))
    assert pair.crops.shape == (2, *SIZE, 3)
    assert pair.points.shape == (2, POINTS, 2)
    found = np.isfinite(pair.points[0, :, 0])
    assert found.sum() > POINTS // 2
    colours = []
    for crop, points in zip(pair.crops, pair.points[:, found], strict=True):
        x, y = np.round(points).astype(int).T
        colours.append(crop[y, x, :2].astype(int))
    assert np.abs(colours[0] - colours[1]).max() <= 6
    assert np.ptp(colours[0], axis=0).min() > 20


def test_points_lie_within_both_crops() -> None:
    pair = make_pair(np.random.default_rng(1), (source(240, 320),) * 2, SIZE, Warps())
    points = pair.points[np.isfinite(pair.points)].reshape(-1, 2)
    assert (points > 0).all()
    assert (points < (SIZE[1], SIZE[0])).all()


def test_hidden_parts_have_no_points() -> None:
    whole = source(240, 320)
    left = np.tile(np.arange(40) < 20, (30, 1))
    points = np.array([(0.2, 0.5), (0.8, 0.5), (1.2, 0.5)])
    assert views.visible(Source(whole.picture, whole.to_picture, left), points).tolist() == [True, False, False]


def test_same_numbers_give_the_same_pair() -> None:
    one, two = (make_pair(np.random.default_rng(2), (source(240, 320),) * 2, SIZE, Warps()) for _ in range(2))
    assert np.array_equal(one.crops, two.crops)
    assert np.array_equal(one.points, two.points, equal_nan=True)


@pytest.mark.parametrize("seed", range(8))
def test_developing_keeps_the_size_and_changes_the_picture(seed: int) -> None:
    picture = cv2.resize(gradient(60, 80), SIZE[::-1])
    developed = views.develop(np.random.default_rng(seed), picture)
    assert developed.shape == picture.shape
    assert developed.dtype == np.uint8
    assert not np.array_equal(developed, picture)
