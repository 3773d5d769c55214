"""Contrastive losses on pairs of views: features of the same point attract each other, others repel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cvnet_engine.engine.geometry import STRIDE_PX

NEAR_PX = 24  # points of one crop closer than this are not used as negatives


def contrast(a: Tensor, b: Tensor, temperature: float, void: Tensor | None = None) -> Tensor:
    """Return the symmetric InfoNCE loss (van den Oord et al., 2018): row i of `a` matches only row i of `b`.

    Args:
        a, b: (N, C) unit vectors.
        void: (N, N) bool, pairs to ignore.
    """
    logits = a.float() @ b.float().T / temperature
    if void is not None:
        logits = logits.masked_fill(void, -1e4)
    labels = torch.arange(len(a))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def local_contrast(first: Tensor, second: Tensor, points: Tensor, size: tuple[int, int], temperature: float) -> Tensor:
    """Return the `contrast` of feature vectors at corresponding points of all pairs.

    Args:
        first, second: L2-normalised feature maps (P, C, h', w') of the two crops of each pair.
        points: (P, 2, N, 2) px in crops of `size` (height, width); NaN for missing points.
    """
    valid = points[:, 0, :, 0].isfinite()  # (P, N)
    points = points.nan_to_num(0.0)
    a, b = (sample(m, points[:, side], size)[valid] for side, m in enumerate((first, second)))  # (M, C)
    return contrast(a, b, temperature, too_near(points, valid))


def sample(unit_map: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate a feature map at pixels (P, N, 2) of the crops; returns unit vectors (P, N, C)."""
    last = torch.tensor([size[1], size[0]]).sub(1).div(STRIDE_PX, rounding_mode="floor")  # the full map's last position
    grid = 2 * points / STRIDE_PX / last - 1
    sampled = F.grid_sample(unit_map.float(), grid[:, None], align_corners=True, padding_mode="border")  # (P, C, 1, N)
    return F.normalize(sampled[:, :, 0].transpose(1, 2), dim=2)


def too_near(points: Tensor, valid: Tensor) -> Tensor:
    """Return (M, M) bool over the valid points: different points of one pair that are close in either crop."""
    pair, number = valid.nonzero(as_tuple=True)
    kept = points.transpose(1, 2)[pair, number]  # (M, 2, 2)
    near = torch.zeros(len(kept), len(kept), dtype=torch.bool)
    for side in range(2):
        near |= torch.cdist(kept[:, side], kept[:, side]) < NEAR_PX
    near &= pair[:, None] == pair[None]
    return near.fill_diagonal_(False)
