"""Initial weights of the verification head: a counter of spatially consistent matches instead of noise.

From random weights the head does not come off the ground in the few thousand pairs that a CPU gets through: every
group norm takes the mean of a pair's evidence away and scales what is left, and with that goes how much there is. Here
each group holds an *anchor*, a constant so large that the variance is its own, and a *balance*, minus the sum of the
group's other channels, so that the mean is the anchor's. The norm then leaves those others, the *evidence*, alone.

Of the evidence, the first layer keeps the strongest correlations and the next two gather them. The fourth looks aside
by a step on the query's side and the fifth by the same step on the key's, so together they add up matches whose
neighbours moved alike. The rest gathers again. Everything can still be learned away.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvnet_engine.cvnet.reranker import GROUPS, CenterPivotConv4d, CorrelationLearner

ANCHOR = -6.0  # times a group's channels; below zero, so no later layer sees it
SPREAD = 0.7  # standard deviation that evidence starts with
KEPT = (3.0, 20.0)  # keys that the first layer keeps for each query position: the strictest channel, the most lenient
STEPS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
SCALE_PAIRS = (8, 8, 5, 7, 8, 8, 4, 8)  # the correlation that each channel of the first layer mostly reads


def start_counting(learner: CorrelationLearner, correlations: list[Tensor]) -> None:
    """Set all weights in place; scales follow from some correlations (1, 9, hq, wq, hk, wk) of real pairs."""
    keys = correlations[0][0, 0, 0, 0].numel()
    plan: list[tuple[Callable[[CenterPivotConv4d], None], float, float]] = [
        (keep_strongest, 1 - KEPT[1] / keys, 1 - KEPT[0] / keys),
        (gather, 0.0, 0.5),
        (gather, 0.0, 0.5),
        (look_aside, 0.0, 0.2),
        (add_up, 0.3, 0.95),
        *[(gather, 0.0, 0.3)] * 4,
    ]
    blocks = (learner.block1, learner.block2, learner.block3, learner.block4)
    convs = [m for block in blocks for m in block if isinstance(m, CenterPivotConv4d)]
    norms = [m for block in blocks for m in block if isinstance(m, nn.GroupNorm)]
    found = correlations
    with torch.no_grad():
        for conv, norm, (fill, low, high) in zip(convs, norms, plan, strict=True):
            for side in (conv.conv1, conv.conv2):
                side.weight.zero_()
                bias_of(side).zero_()
            fill(conv)
            set_thresholds(conv, found, low, high)
            make_steady(conv, norm)
            found = [F.relu(norm(conv(x))) for x in found]
        first = learner.mlp[0]
        assert isinstance(first, nn.Linear)
        standardise(first, torch.cat([x.mean(dim=(2, 3, 4, 5)) for x in found]))


def bias_of(conv: nn.Conv2d) -> Tensor:
    """Its bias, which every layer of the head has."""
    assert conv.bias is not None
    return conv.bias


def evidence(channels: int) -> list[int]:
    """All channels of a layer but the first two of each group: its anchor and its balance."""
    return [channel for channel in range(channels) if channel % (channels // GROUPS) > 1]


def keep_strongest(conv: CenterPivotConv4d) -> None:
    """Single correlations, of mostly one pair of scales each, at or next to the positions that the stride leaves."""
    for n, (output, pair) in enumerate(zip(evidence(16), SCALE_PAIRS, strict=True)):
        side, y, x = (conv.conv1, conv.conv2)[n % 2], n // 4 % 2, n // 2 % 2
        side.weight[output, pair, 2 + y, 2 + x] = 1
        side.weight[output, 4:, 2 + y, 2 + x] += 0.15 * torch.rand(5)
        if n % 3 == 2:
            side.weight[output, pair] -= 0.02  # over what surrounds them


def gather(conv: CenterPivotConv4d) -> None:
    """Mixtures of evidence, blurred on both sides."""
    blur = torch.tensor([[1.0, 2.0, 1.0], [2.0, 8.0, 2.0], [1.0, 2.0, 1.0]]) / 20
    outputs, inputs = map(evidence, conv.conv1.weight.shape[:2])
    for output in outputs:
        for side in (conv.conv1, conv.conv2):
            side.weight[output, inputs] = mixture(len(inputs))[:, None, None] * blur


def look_aside(conv: CenterPivotConv4d) -> None:
    """Mixtures of evidence a step away on the query's side; `STEPS` in turn."""
    outputs, inputs = map(evidence, conv.conv1.weight.shape[:2])
    for n, output in enumerate(outputs):
        y, x = STEPS[n % len(STEPS)]
        conv.conv1.weight[output, inputs, 1 + y, 1 + x] = mixture(len(inputs))


def add_up(conv: CenterPivotConv4d) -> None:
    """Sums over the steps of what `look_aside` saw, each the same step away on the key's side."""
    outputs, inputs = map(evidence, conv.conv2.weight.shape[:2])
    for output in outputs:
        for n, (channel, share) in enumerate(zip(inputs, mixture(len(inputs)), strict=True)):
            y, x = STEPS[n % len(STEPS)]
            conv.conv2.weight[output, channel, 1 + y, 1 + x] = share


def mixture(channels: int) -> Tensor:
    """Random shares (channels,) of sum 1, a few of them large."""
    shares = torch.rand(channels) ** 3
    return shares / shares.sum()


def set_thresholds(conv: CenterPivotConv4d, found: list[Tensor], low: float, high: float) -> None:
    """Evidence of spread `SPREAD`, above thresholds between two quantiles of what the layer before found."""
    responses = torch.cat([conv(x).transpose(0, 1).flatten(1) for x in found], dim=1)  # (outputs, positions)
    sample = responses[:, torch.randint(responses.shape[1], (16384,))]
    for channel in evidence(len(responses)):
        scale = SPREAD / responses[channel].std().clamp(min=1e-4)
        for side in (conv.conv1, conv.conv2):
            side.weight[channel] *= scale
        bias_of(conv.conv1)[channel] = -scale * sample[channel].quantile(low + (high - low) * float(torch.rand(())))


def make_steady(conv: CenterPivotConv4d, norm: nn.GroupNorm) -> None:
    """Anchors and balances, and a norm that gives back what it takes from the evidence."""
    channels = norm.num_channels // GROUPS
    for first in range(0, norm.num_channels, channels):
        for side in (conv.conv1, conv.conv2):
            side.weight[first + 1] = -side.weight[first + 2 : first + channels].sum(dim=0)
            bias_of(side)[first + 1] = -bias_of(side)[first + 2 : first + channels].sum()
        bias_of(conv.conv1)[first] = ANCHOR * channels
    norm.weight.fill_(-ANCHOR * (channels - 1) ** 0.5)  # the standard deviation of a group
    norm.bias.fill_(ANCHOR)  # its mean


def standardise(layer: nn.Linear, inputs: Tensor) -> None:
    """Let a layer read its inputs (n, C) at mean 0 and spread 1."""
    spread = inputs.std(dim=0)
    layer.weight.mul_(torch.where(spread > 1e-5, 1 / spread.clamp(min=1e-5), 0.0))
    layer.bias.sub_(layer.weight @ inputs.mean(dim=0))
