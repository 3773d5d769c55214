"""SuperGlobal's descriptor, from CVNet's weights unchanged (Shao et al., ICCV 2023, section 3).

Its trunk keeps activations of the first three stages above zero, so its maps after the stem differ from CVNet's.
CVNet's local feature map therefore needs a second pass from the stem, with the same weights.

Shape legend: B batch, H W image pixels, h w stage-4 positions (stride 32).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck

from cvnet_engine.cvnet.backbone import Backbone

FLOOR = 0.014  # lower bound of an activation, 0 in a ReLU
REGION, REGION_P = 5, 2.5  # side of a region in positions, and the exponent of its mean
GLOBAL_P = 4.6  # exponent of the mean over the map; the checkpoint's own is not used
SMALLEST = 1e-8  # lower bound of the values in that mean


class SuperGlobal(Backbone):
    """CVNet's backbone with SuperGlobal's descriptor. GeM's learned exponent is not used."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Describe one scale of an image.

        Args:
            image: (B, 3, H, W) float32, BGR, normalised. H and W must give at least three positions of
                stage 4 (65 px).

        Returns:
            descriptor (B, 2048) of unit norm, and CVNet's local feature map (B, 1024, H/16, W/16), signed.
        """
        x = self.stem(image)
        return self.described(x), self.feature_map(x)

    def describe(self, image: Tensor) -> Tensor:
        return self.described(self.stem(image))

    def described(self, x: Tensor) -> Tensor:
        """The descriptor (B, 2048) from the output of the stem."""
        net = self.trunk
        for stage, inner, outer in (
            (net.layer1, FLOOR, FLOOR),
            (net.layer2, 0.0, FLOOR),
            (net.layer3, 0.0, FLOOR),
            (net.layer4, 0.0, 0.0),
        ):
            for block in stage:
                x = bottleneck(block, x, inner, outer)
        pooled = global_mean(regional_mean(x))  # (B, 2048)
        return F.normalize(self.whiten(F.normalize(pooled, dim=1)), dim=1)


def bottleneck(block: Bottleneck, x: Tensor, inner: float, outer: float) -> Tensor:
    """A residual block whose activations are clamped from below at `inner` inside it and at `outer` after its sum."""
    out = floored(block.bn1(block.conv1(x)), inner)
    out = floored(block.bn2(block.conv2(out)), inner)
    shortcut = x if block.downsample is None else block.downsample(x)
    return floored(block.bn3(block.conv3(out)) + shortcut, outer)


def floored(x: Tensor, floor: float) -> Tensor:
    return x.clamp(min=floor) if floor else F.relu(x)


def regional_mean(x: Tensor) -> Tensor:
    """Each position averaged with the generalised mean of the region around it.

    (B, C, h, w), not negative, to the same shape. The map is mirrored at its edges, which are not repeated.
    """
    mirrored = F.pad(x.pow(REGION_P), [REGION // 2] * 4, mode="reflect")
    return 0.5 * F.avg_pool2d(mirrored, REGION, stride=1).pow(1 / REGION_P) + 0.5 * x


def global_mean(x: Tensor) -> Tensor:
    """Generalised mean over the map: (B, C, h, w) -> (B, C)."""
    return x.clamp(min=SMALLEST).pow(GLOBAL_P).mean(dim=(2, 3)).pow(1 / GLOBAL_P)


def over_scales(descriptors: Tensor) -> Tensor:
    """Combine unit-norm descriptors (S, D) of an image's scales into one (D,) of unit norm."""
    return F.normalize(torch.amax(descriptors, dim=0), dim=0)
