"""The global branch of CVNet: a ResNet trunk, GeM pooling and a whitening layer (CVNet, CVPR 2022, section 3.1).

Shape legend: B batch, H W image pixels, h w stage-3 positions (stride 16).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50, resnet101
from torchvision.models.resnet import Bottleneck

from cvnet_engine.engine.geometry import DESCRIPTOR_DIM

TRUNKS = {50: resnet50, 101: resnet101}


class GeM(nn.Module):
    """Generalised-mean pooling with a learned exponent (Radenovic et al., TPAMI 2019, equation 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C)
        return x.clamp(min=1e-6).pow(self.p).mean(dim=(2, 3)).pow(1.0 / self.p)


class Backbone(nn.Module):
    """ResNet-50 or 101 with the stride on the 3x3 convolutions, which is torchvision's layout too."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.trunk = TRUNKS[depth]()
        self.trunk.fc = nn.Identity()  # the classifier, replaced by `whiten`
        self.gem = GeM()
        self.whiten = nn.Linear(DESCRIPTOR_DIM, DESCRIPTOR_DIM)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Describe one scale of an image.

        Args:
            image: (B, 3, H, W) float32, BGR, normalised.

        Returns:
            descriptor (B, 2048) of unit norm, and the local feature map (B, 1024, h, w): the last block of
            stage 3 before its final ReLU, so its values are signed.
        """
        feature_map = self.feature_map(self.stem(image))
        x = self.trunk.layer4(F.relu(feature_map))  # (B, 2048, H/32, W/32)
        return F.normalize(self.whiten(self.gem(x)), dim=1), feature_map

    def describe(self, image: Tensor) -> Tensor:
        """The descriptor alone."""
        descriptor: Tensor = self(image)[0]
        return descriptor

    def stem(self, image: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 64, H/4, W/4)
        net = self.trunk
        x: Tensor = net.maxpool(net.relu(net.bn1(net.conv1(image))))
        return x

    def feature_map(self, x: Tensor) -> Tensor:
        """The local feature map (B, 1024, h, w) from the output of the stem."""
        x = self.trunk.layer2(self.trunk.layer1(x))  # (B, 512, H/8, W/8)
        *blocks, last = self.trunk.layer3
        for block in blocks:
            x = block(x)
        return residual_sum(last, x)


def residual_sum(block: Bottleneck, x: Tensor) -> Tensor:
    """A bottleneck without projection, up to but not including its final ReLU."""
    out: Tensor = block.relu(block.bn1(block.conv1(x)))
    out = block.relu(block.bn2(block.conv2(out)))
    out = block.bn3(block.conv3(out))
    return out + x
