"""Training target of the reranker's head: matches of two feature maps vote for a shift and scale.

This is a Hough transform (Ballard, 1981) over shifts, at a few scales. It separates right pairs from look-alikes far
better than a count of matches, but no convolution can compute it: whether two positions are mutual nearest neighbours
depends on all others. The head did not learn it from labels within the available time, but learns it in minutes as a
regression target.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALES = (0.5, 0.63, 0.8, 1.0, 1.25, 1.6, 2.0)  # scale of the subject in the key relative to the query
TOLERANCE = 1.5  # positions, in x and in y
EVEN_VOTES = 44.0  # of a look-alike pair that is equally likely right or wrong (validation scenes)


def votes(query: Tensor, key: Tensor) -> Tensor:
    """Return the sum () of the similarities of mutual nearest neighbours that agree best on one scale and shift.

    Args:
        query, key: L2-normalised feature maps (256, hq, wq) and (256, hk, wk).
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
    """Convert position numbers (n,) of a map to x and y, (n, 2) float32."""
    width = unit_map.shape[-1]
    return torch.stack([positions % width, positions // width], dim=1).float()
