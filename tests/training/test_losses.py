"""Contrasts of pairs, and features at points."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from training.losses import contrast, local_contrast, sample, too_near

SIZE = (80, 96)  # px: a map of 5 x 6


def unit_map(seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(2, 8, 5, 6, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_the_right_order_contrasts_best() -> None:
    rows = F.normalize(torch.randn(6, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    assert contrast(rows, rows, 0.1) < contrast(rows, rows.roll(1, 0), 0.1)


def test_void_pairs_do_not_count() -> None:
    rows = F.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    doubled = torch.cat([rows, rows[:1]])  # the last is the first again: no telling them apart
    void = torch.zeros(4, 4, dtype=torch.bool)
    void[0, 3] = void[3, 0] = True
    assert contrast(doubled, doubled, 0.1, void) < contrast(doubled, doubled, 0.1)


def test_a_position_is_sampled_at_sixteen_pixels_a_step() -> None:
    features = unit_map(1)
    points = torch.tensor([[[32.0, 48.0], [80.0, 0.0]]] * 2)  # (x, y)
    found = sample(features, points, SIZE)
    torch.testing.assert_close(found[:, 0], features[:, :, 3, 2])
    torch.testing.assert_close(found[:, 1], features[:, :, 0, 5])


def test_a_reduced_map_is_sampled_at_the_same_place() -> None:
    ramp = torch.stack(torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij"))[None] + 1
    small = F.interpolate(ramp, (3, 4), mode="bilinear", align_corners=True)
    points = torch.tensor([[[40.0, 24.0]]])
    torch.testing.assert_close(sample(small, points, SIZE), sample(ramp, points, SIZE))


def test_neighbours_of_one_pair_are_void_and_others_are_not() -> None:
    points = torch.tensor([[[[0.0, 0], [10, 0], [60, 0]], [[0, 0], [40, 0], [70, 0]]]] * 2)  # (2, 2, 3, 2)
    void = too_near(points, torch.ones(2, 3, dtype=torch.bool))
    assert void[:3, :3].tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    assert not void[:3, 3:].any()


def test_missing_points_are_left_out() -> None:
    points = torch.rand(2, 2, 4, 2) * 70 + 4
    some = torch.cat([points, torch.full((2, 2, 3, 2), torch.nan)], dim=2)
    maps = unit_map(2), unit_map(3)
    torch.testing.assert_close(local_contrast(*maps, some, SIZE, 0.1), local_contrast(*maps, points, SIZE, 0.1))
