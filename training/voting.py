"""The teacher of the verification head: matches of two feature maps vote for how one lies in the other.

A Hough transform (Ballard, 1981) over shifts, at a few scales. It tells right pairs from look-alikes far better than a
count of matches, but no convolution can compute it: whether two positions are each other's nearest neighbours depends
on all others. Labels did not teach it in the time there is; as a number to be met, it is learnt in minutes.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALES = (0.5, 0.63, 0.8, 1.0, 1.25, 1.6, 2.0)  # of the key's picture of the subject over the query's
TOLERANCE = 1.5  # positions, in x and in y
EVEN_VOTES = 44.0  # of a pair that is as likely right as wrong, among look-alikes (validation scenes)


def votes(query: Tensor, key: Tensor) -> Tensor:
    """The similarities of the mutual nearest neighbours that agree best on one scale and shift, added up: ().

    Args:
        query, key: unit maps (256, hq, wq) and (256, hk, wk).
    """
    similarities = query.flatten(1).T @ key.flatten(1)  # (Q, K)
    best, keys = similarities.max(dim=1)
    mutual = (similarities.argmax(dim=0)[keys] == torch.arange(len(keys))).nonzero()[:, 0]  # never empty
    weights = best[mutual].clamp(min=0)
    first, second = places(mutual, query), places(keys[mutual], key)
    shifts = [second - scale * first for scale in SCALES]
    agree = [torch.cdist(shift, shift, p=torch.inf) <= TOLERANCE for shift in shifts]
    return torch.stack([(a.float() @ weights).max() for a in agree]).max()


def places(positions: Tensor, unit_map: Tensor) -> Tensor:
    """(n,) numbers of a map's positions -> (n, 2) x and y, float32."""
    width = unit_map.shape[-1]
    return torch.stack([positions % width, positions // width], dim=1).float()
