"""Where the verification head starts from: a counter of matches, rather than noise.

From random weights the head does not come off the ground in the few thousand pairs that a CPU gets through: every
group norm rescales a pair's evidence to unit variance, and with it goes how much there is. Here two channels of each
group are constants far apart, so that the variance is theirs and the norm leaves the others as they are. Those others
blur, add and threshold what the layer before them found, and the whole counts places where neighbours match neighbours.
Everything can still be learned away.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cvnet.reranker import GROUPS, CenterPivotConv4d, CorrelationLearner

ANCHOR = 3.0  # the constants are +ANCHOR and -ANCHOR
SPREAD = 0.7  # standard deviation that the other channels start with


def start_counting(learner: CorrelationLearner, correlations: list[Tensor]) -> None:
    """Set all weights in place; scales follow from some correlations (1, 9, hq, wq, hk, wk) of real pairs."""
    with torch.no_grad():
        found = correlations
        for block in (learner.block1, learner.block2, learner.block3, learner.block4):
            for conv, norm, relu in zip(block[::3], block[1::3], block[2::3], strict=True):
                blur_and_threshold(conv, found)
                norm.weight.fill_(ANCHOR * (2 / (conv.conv1.out_channels // GROUPS)) ** 0.5)
                norm.bias.zero_()
                found = [relu(norm(conv(x))) for x in found]
        standardise(learner.mlp[0], torch.cat([x.mean(dim=(2, 3, 4, 5)) for x in found]))


def blur_and_threshold(conv: CenterPivotConv4d, found: list[Tensor]) -> None:
    """Positive mixtures of the channels that are no constants, blurred, of spread `SPREAD` above a random threshold."""
    outputs, inputs = conv.conv1.weight.shape[:2]
    live = torch.ones(inputs, dtype=torch.bool) if inputs == 9 else ~anchors(inputs)
    for side in (conv.conv1, conv.conv2):
        side.weight.zero_()
        side.bias.zero_()
        mixture = torch.rand(outputs, int(live.sum())) ** 3
        kernel = binomial(side.kernel_size[0]) * (0.7 + 0.6 * torch.rand(outputs, 1, *side.kernel_size))
        side.weight[:, live] = mixture[:, :, None, None] * kernel / mixture.sum(dim=1)[:, None, None, None]
    responses = torch.cat([conv(x).transpose(0, 1).flatten(1) for x in found], dim=1)  # (outputs, positions)
    scale = SPREAD / responses.std(dim=1).clamp(min=1e-4)
    threshold = torch.quantile(responses[:, torch.randperm(responses.shape[1])[:4096]], 0.75, dim=1)
    for side in (conv.conv1, conv.conv2):
        side.weight *= scale[:, None, None, None]
    conv.conv1.bias.copy_(-threshold * scale)
    constant = anchors(outputs)
    for side in (conv.conv1, conv.conv2):
        side.weight[constant] = 0
    conv.conv1.bias[constant] = ANCHOR * torch.tensor([1.0, -1.0]).repeat(GROUPS)


def anchors(channels: int) -> Tensor:
    """Which channels are constants: the first two of each group."""
    return torch.arange(channels) % (channels // GROUPS) < 2


def binomial(size: int) -> Tensor:
    """A blur (size, size) of sum 1."""
    row = torch.tensor({3: [1.0, 2.0, 1.0], 5: [0.2, 1.0, 2.0, 1.0, 0.2]}[size])
    return torch.outer(row, row) / row.sum() ** 2


def standardise(layer: nn.Linear, inputs: Tensor) -> None:
    """Let a layer read its inputs (n, C) at mean 0 and spread 1."""
    spread = inputs.std(dim=0)
    layer.weight *= torch.where(spread > 1e-5, 1 / spread.clamp(min=1e-5), 0.0)
    layer.bias -= layer.weight @ inputs.mean(dim=0)
