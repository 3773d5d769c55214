"""Initial weights of the reranker's head, which make it count spatially consistent matches.

From random weights, the head learns nothing within the few thousand pairs that a CPU can process: every group norm
removes the mean of a pair's evidence and scales the rest, so the amount of evidence is lost. With these weights, each
group has an *anchor*, a constant so large that it determines the variance, and a *balance*, minus the sum of the
group's other channels, so that the anchor also determines the mean. The norm then does not change the other channels,
the *evidence*.

The first layer keeps the strongest correlations; the next two spread them to neighbours. The fourth shifts by a step on
the query's side and the fifth by the same step on the key's side, so together they sum matches whose neighbours moved
in the same way. The remaining layers spread again. Training can change all of these weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvnet_engine.cvnet.reranker import GROUPS, CenterPivotConv4d, CorrelationLearner

ANCHOR = -6.0  # times the channels of a group; negative, so that ReLU hides it from the next layer
SPREAD = 0.7  # initial standard deviation of evidence
KEPT = (3.0, 20.0)  # keys per query position that the first layer keeps, from its strictest to its most lenient channel
STEPS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
SCALE_PAIRS = (8, 8, 5, 7, 8, 8, 4, 8)  # the correlation that each channel of the first layer mainly reads


def start_counting(learner: CorrelationLearner, correlations: list[Tensor]) -> None:
    """Set all weights in place; `correlations` (1, 9, hq, wq, hk, wk) of real pairs determine the scales."""
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
    """Return the bias of a layer, which every layer of the head has."""
    assert conv.bias is not None
    return conv.bias


def evidence(channels: int) -> list[int]:
    """Return all channels of a layer except the first two of each group, its anchor and its balance."""
    return [channel for channel in range(channels) if channel % (channels // GROUPS) > 1]


def keep_strongest(conv: CenterPivotConv4d) -> None:
    """Read single correlations, mainly of one pair of scales each, at or next to positions that the stride keeps."""
    for n, (output, pair) in enumerate(zip(evidence(16), SCALE_PAIRS, strict=True)):
        side, y, x = (conv.conv1, conv.conv2)[n % 2], n // 4 % 2, n // 2 % 2
        side.weight[output, pair, 2 + y, 2 + x] = 1
        side.weight[output, 4:, 2 + y, 2 + x] += 0.15 * torch.rand(5)
        if n % 3 == 2:
            side.weight[output, pair] -= 0.02  # relative to the surrounding correlations


def gather(conv: CenterPivotConv4d) -> None:
    """Mix evidence and blur it on both sides."""
    blur = torch.tensor([[1.0, 2.0, 1.0], [2.0, 8.0, 2.0], [1.0, 2.0, 1.0]]) / 20
    outputs, inputs = map(evidence, conv.conv1.weight.shape[:2])
    for output in outputs:
        for side in (conv.conv1, conv.conv2):
            side.weight[output, inputs] = mixture(len(inputs))[:, None, None] * blur


def look_aside(conv: CenterPivotConv4d) -> None:
    """Mix evidence one step away on the query's side; the channels take `STEPS` in turn."""
    outputs, inputs = map(evidence, conv.conv1.weight.shape[:2])
    for n, output in enumerate(outputs):
        y, x = STEPS[n % len(STEPS)]
        conv.conv1.weight[output, inputs, 1 + y, 1 + x] = mixture(len(inputs))


def add_up(conv: CenterPivotConv4d) -> None:
    """Sum the outputs of `look_aside` over the steps, each shifted by the same step on the key's side."""
    outputs, inputs = map(evidence, conv.conv2.weight.shape[:2])
    for output in outputs:
        for n, (channel, share) in enumerate(zip(inputs, mixture(len(inputs)), strict=True)):
            y, x = STEPS[n % len(STEPS)]
            conv.conv2.weight[output, channel, 1 + y, 1 + x] = share


def mixture(channels: int) -> Tensor:
    """Return random weights (channels,) with sum 1, a few of them large."""
    shares = torch.rand(channels) ** 3
    return shares / shares.sum()


def set_thresholds(conv: CenterPivotConv4d, found: list[Tensor], low: float, high: float) -> None:
    """Scale evidence to standard deviation `SPREAD`, with thresholds between two quantiles of the responses."""
    responses = torch.cat([conv(x).transpose(0, 1).flatten(1) for x in found], dim=1)  # (outputs, positions)
    sample = responses[:, torch.randint(responses.shape[1], (16384,))]
    for channel in evidence(len(responses)):
        scale = SPREAD / responses[channel].std().clamp(min=1e-4)
        for side in (conv.conv1, conv.conv2):
            side.weight[channel] *= scale
        bias_of(conv.conv1)[channel] = -scale * sample[channel].quantile(low + (high - low) * float(torch.rand(())))


def make_steady(conv: CenterPivotConv4d, norm: nn.GroupNorm) -> None:
    """Set anchors and balances, and norm parameters that undo the normalisation of the evidence."""
    channels = norm.num_channels // GROUPS
    for first in range(0, norm.num_channels, channels):
        for side in (conv.conv1, conv.conv2):
            side.weight[first + 1] = -side.weight[first + 2 : first + channels].sum(dim=0)
            bias_of(side)[first + 1] = -bias_of(side)[first + 2 : first + channels].sum()
        bias_of(conv.conv1)[first] = ANCHOR * channels
    norm.weight.fill_(-ANCHOR * (channels - 1) ** 0.5)  # standard deviation of a group
    norm.bias.fill_(ANCHOR)  # mean of a group


def standardise(layer: nn.Linear, inputs: Tensor) -> None:
    """Scale the layer's inputs (n, C) to mean 0 and standard deviation 1."""
    spread = inputs.std(dim=0)
    layer.weight.mul_(torch.where(spread > 1e-5, 1 / spread.clamp(min=1e-5), 0.0))
    layer.bias.sub_(layer.weight @ inputs.mean(dim=0))
