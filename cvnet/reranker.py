"""Correlation verification as published: the score of one image pair (CVNet, CVPR 2022, sections 3.2 and 3.3).

This is the plain form, with the whole 4D correlation in memory; `export.reranker` is the factored one.

Shape legend: B batch, hq wq query positions, hk wk key positions, C channels.
"""

from __future__ import annotations

from math import sqrt

from torch import Tensor, cat, nn
from torch.nn import functional as F

from cvnet_engine.engine.geometry import AREA_SCALES, LOCAL_DIM, MAP_DIM

GROUPS = 4


class CenterPivotConv4d(nn.Module):
    """A 4D convolution kept to its centre-pivot planes: one 2D convolution over each side's positions.

    With stride 2 the side that is not convolved is sampled at every other position (HSNet, ICCV 2021, section 3.3).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)  # over the query's positions
        self.conv2 = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)  # over the key's positions

    def forward(self, x: Tensor) -> Tensor:  # (B, C, hq, wq, hk, wk)
        s = self.stride
        over_query = conv_last_two(self.conv1, x[..., ::s, ::s].permute(0, 4, 5, 1, 2, 3))  # (B, hk, wk, C, hq, wq)
        over_key = conv_last_two(self.conv2, x[:, :, ::s, ::s].permute(0, 2, 3, 1, 4, 5))  # (B, hq, wq, C, hk, wk)
        return over_query.permute(0, 3, 4, 5, 1, 2) + over_key.permute(0, 3, 1, 2, 4, 5)


def conv_last_two(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`conv` over the last two axes of (B, m, n, C, h, w), each of the B·m·n planes on its own."""
    y: Tensor = conv(x.flatten(0, 2))
    return y.view(*x.shape[:3], *y.shape[1:])


def block(*layers: CenterPivotConv4d) -> nn.Sequential:
    """Each convolution followed by GroupNorm over all positions and ReLU."""
    parts: list[nn.Module] = []
    for layer in layers:
        parts += [layer, nn.GroupNorm(GROUPS, layer.conv1.out_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts)


class CorrelationLearner(nn.Module):
    """The 4D network on top of the nine-channel correlation, down to two logits."""

    def __init__(self) -> None:
        super().__init__()
        conv = CenterPivotConv4d
        self.block1 = block(conv(len(AREA_SCALES) ** 2, 16, 5, 2))
        self.block2 = block(conv(16, 16, 3), conv(16, 32, 3, 2))
        self.block3 = block(conv(32, 32, 3), conv(32, 32, 3), conv(32, 64, 3, 2))
        self.block4 = block(conv(64, 64, 3), conv(64, 64, 3), conv(64, 128, 3))
        self.mlp = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))

    def forward(self, correlation: Tensor) -> Tensor:  # (B, 9, hq, wq, hk, wk) -> (B, 2)
        x = self.block4(self.block3(self.block2(self.block1(correlation))))
        logits: Tensor = self.mlp(x.mean(dim=(2, 3, 4, 5)))
        return logits


class Reranker(nn.Module):
    """Scores a pair of feature maps for showing the same place or object."""

    def __init__(self) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(LOCAL_DIM, MAP_DIM, 3, padding=1, bias=False) for _ in AREA_SCALES)
        self.learner = CorrelationLearner()

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Logits (B, 2) of a pair of stage-3 maps, query (B, 1024, hq, wq) and key (B, 1024, hk, wk).

        The published score of the pair is `softmax(logits)[:, 1]`.
        """
        logits: Tensor = self.learner(self.correlation(query, key))
        return logits

    def correlation(self, query: Tensor, key: Tensor) -> Tensor:
        """Cross-scale correlation (B, 9, hq, wq, hk, wk), never negative; channel 3·i + j is scale i by scale j."""
        queries, keys = self.project(query), self.project(key)
        sizes = (*query.shape[2:], *key.shape[2:])
        channels = [resize4d(cosine(q, k), *sizes) for q in queries for k in keys]
        return cat([c.unsqueeze(1) for c in channels], dim=1).clamp(min=0)

    def project(self, x: Tensor) -> list[Tensor]:
        """The map at each scale: resized, then projected to 256 channels by that scale's own convolution."""
        height, width = x.shape[2:]
        sizes = [scaled_size(height, width, s) for s in AREA_SCALES]
        return [conv(resize(x, *size)) for size, conv in zip(sizes, self.projections, strict=True)]


def scaled_size(height: int, width: int, area_scale: float) -> tuple[int, int]:
    """Positions of a map at `area_scale` of its area; Python's rounding, halves to even."""
    return round(height * sqrt(area_scale)), round(width * sqrt(area_scale))


def resize(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=True)


def cosine(query: Tensor, key: Tensor) -> Tensor:
    """Cosine similarity of every query position with every key position: (B, hq, wq, hk, wk)."""
    dots = query.flatten(2).transpose(1, 2) @ key.flatten(2)  # (B, hq·wq, hk·wk)
    norms: Tensor = query.flatten(2).norm(dim=1).unsqueeze(2) * key.flatten(2).norm(dim=1).unsqueeze(1)
    return (dots / (norms + 1e-8)).view(-1, *query.shape[2:], *key.shape[2:])


def resize4d(x: Tensor, hq: int, wq: int, hk: int, wk: int) -> Tensor:
    """Bilinear resize of both sides of (B, hq', wq', hk', wk') to (B, hq, wq, hk, wk)."""
    batch, hq0, wq0 = x.shape[:3]
    x = resize(x.flatten(1, 2), hk, wk)  # (B, hq'·wq', hk, wk)
    x = x.view(batch, hq0, wq0, hk * wk).permute(0, 3, 1, 2)
    x = resize(x, hq, wq)  # (B, hk·wk, hq, wq)
    return x.view(batch, hk, wk, hq, wq).permute(0, 3, 4, 1, 2)
