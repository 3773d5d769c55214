"""The reranker in factored form as a PyTorch module, for training. `export.reranker` explains the formula.

Shape legend: B keys (candidates), C channels, hq wq query positions and hk wk key positions of the current layer,
Q = hq·wq, K = hk·wk, 3 area scales of the maps, i for the query's and j for the key's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvnet_engine.cvnet.reranker import GROUPS, CenterPivotConv4d, Reranker, resize
from cvnet_engine.engine.geometry import MAP_DIM
from cvnet_engine.export.reranker import key_major


class FactoredReranker(nn.Module):
    """The per-pair part of the reranker: one query against a batch of keys whose maps have equal size."""

    def __init__(self, reranker: Reranker) -> None:
        super().__init__()
        learner = reranker.learner
        blocks = (learner.block1, learner.block2, learner.block3, learner.block4)
        first, *convs = [m for block in blocks for m in block if isinstance(m, CenterPivotConv4d)]
        norm, *norms = [FactoredNorm(m) for block in blocks for m in block if isinstance(m, nn.GroupNorm)]
        self.over_query, self.over_key, self.norm = key_major(first.conv1), first.conv2, norm
        layers = [nn.Sequential(FactoredConv4d(conv), norm) for conv, norm in zip(convs, norms, strict=True)]
        self.layers = nn.Sequential(*layers)
        self.mlp = learner.mlp

    def forward(self, q0: Tensor, q1: Tensor, q2: Tensor, k0: Tensor, k1: Tensor, k2: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            q0, q1, q2: the query's L2-normalised maps (1, 256, h_s, w_s), for area scales 0.25, 0.5 and 1.
            k0, k1, k2: the keys' L2-normalised maps (B, 256, h_s, w_s).

        Returns:
            Logits (B, 2) and pair scores (B,), the softmax's second class.
        """
        query = full_size(q0, q1, q2).squeeze(0)  # (3, 256, hq, wq)
        key = full_size(k0, k1, k2)  # (B, 3, 256, hk, wk)
        x = self.norm(self.first_convolution(query, key))  # (B, hk, wk, 16, hq, wq)
        x = self.layers(x)
        logits: Tensor = self.mlp(x.mean(dim=(1, 2, 4, 5)))
        return logits, logits.softmax(dim=1)[:, 1]

    def first_convolution(self, query: Tensor, key: Tensor) -> Tensor:
        """Compute block 1's convolution from full-size maps: (B, hk/2, wk/2, 16, hq/2, wq/2)."""
        hq, wq = query.shape[2:]
        hk, wk = key.shape[3:]
        all_queries = query.permute(1, 0, 2, 3).reshape(MAP_DIM, -1)  # (256, 3i·Q)
        all_keys = key.permute(0, 2, 1, 3, 4).reshape(-1, MAP_DIM, 3 * hk * wk)  # (B, 256, 3j·K)
        even_keys = key[..., ::2, ::2].permute(0, 3, 4, 1, 2)  # (B, hk/2, wk/2, 3j, 256)
        even_queries = query[..., ::2, ::2].permute(2, 3, 0, 1)  # (hq/2, wq/2, 3i, 256)
        k_axes, q_axes = even_keys.shape[:3], even_queries.shape[:2]

        rows = even_keys.reshape(-1, MAP_DIM) @ all_queries  # (B·K/4·3j, 3i·Q)
        over_query = self.over_query(F.relu(rows).view(-1, 9, hq, wq))  # (B·K/4, 16, hq/2, wq/2)
        rows = even_queries.reshape(-1, MAP_DIM) @ all_keys  # (B, Q/4·3i, 3j·K)
        over_key = self.over_key(F.relu(rows).view(-1, 9, hk, wk))  # (B·Q/4, 16, hk/2, wk/2)
        over_key = over_key.view(-1, *q_axes, *over_key.shape[1:]).permute(0, 4, 5, 3, 1, 2)
        sum_of_planes: Tensor = over_query.view(*k_axes, *over_query.shape[1:]) + over_key
        return sum_of_planes


class FactoredConv4d(nn.Module):
    """`CenterPivotConv4d` on key-major tensors (B, hk, wk, C, hq, wq)."""

    def __init__(self, conv: CenterPivotConv4d) -> None:
        super().__init__()
        self.over_query, self.over_key, self.stride = conv.conv1, conv.conv2, conv.stride

    def forward(self, x: Tensor) -> Tensor:
        s = self.stride
        _, hk, wk, channels, hq, wq = x.shape
        even_keys = x[:, ::s, ::s]
        over_query = self.over_query(even_keys.reshape(-1, channels, hq, wq))  # (B·K/s², C', hq/s, wq/s)
        even_queries = x[..., ::s, ::s].permute(0, 4, 5, 3, 1, 2)  # (B, hq/s, wq/s, C, hk, wk)
        over_key = self.over_key(even_queries.reshape(-1, channels, hk, wk))  # (B·Q/s², C', hk/s, wk/s)
        over_key = over_key.view(*even_queries.shape[:3], *over_key.shape[1:]).permute(0, 4, 5, 3, 1, 2)
        sum_of_planes: Tensor = over_query.view(*even_keys.shape[:3], *over_query.shape[1:]) + over_key
        return sum_of_planes


class FactoredNorm(nn.Module):
    """GroupNorm and ReLU on (B, hk, wk, C, hq, wq), as one scale and one shift per key and channel."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        mean = self.group_mean(x.mean(dim=(1, 2, 4, 5)))  # (B, C)
        mean_square = self.group_mean(x.square().mean(dim=(1, 2, 4, 5)))
        scale = self.weight * torch.rsqrt(mean_square - mean.square() + self.eps)
        shift = self.bias - mean * scale
        return F.relu(x * scale[:, None, None, :, None, None] + shift[:, None, None, :, None, None])

    def group_mean(self, x: Tensor) -> Tensor:  # (B, C) -> (B, C), equal within a group
        groups = x.view(-1, GROUPS, x.shape[1] // GROUPS)
        return groups.mean(dim=2, keepdim=True).expand_as(groups).reshape(x.shape)


def full_size(*maps: Tensor) -> Tensor:
    """Resize the three maps to the last one's size and stack them: (B, 3, 256, h, w), no longer L2-normalised."""
    *smaller, full = maps
    return torch.stack([*(resize(m, *full.shape[2:]) for m in smaller), full], dim=1)
