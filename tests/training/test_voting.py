"""The teacher of the verification head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from training.voting import votes


def noise(height: int, width: int) -> Tensor:
    return F.normalize(torch.randn(256, height, width), dim=0)


def test_matches_that_moved_alike_vote_together() -> None:
    torch.manual_seed(0)
    query, key = noise(12, 16), noise(14, 18)
    key[:, 3:9, 5:14] = query[:, 1:7, 2:11]  # 54 positions, all by (2, 3)
    assert votes(query, key) == pytest.approx(54, rel=0.1)


def test_scattered_matches_do_not() -> None:
    torch.manual_seed(0)
    query = noise(12, 16)
    key = query.flatten(1)[:, torch.randperm(12 * 16)].view(256, 12, 16)  # as many, each by itself
    assert votes(query, key) < 25
    assert votes(query, query) == pytest.approx(12 * 16, rel=1e-4)


def test_a_subject_of_another_scale_is_found() -> None:
    torch.manual_seed(0)
    query = noise(10, 10)
    key = noise(20, 20)
    key[:, ::2, ::2] = query
    assert votes(query, key) == pytest.approx(100, rel=0.1)
