"""Narrow ResNet that fits into the published one, small enough to train on a CPU and to ship.

It equals the published network with all remaining channels zero and with remaining blocks that add nothing, which is
how `cvnet.built_in` stores it. It is trained in its narrow form, with a ninth of the multiplications.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torchvision.models.resnet import Bottleneck

from cvnet_engine.cvnet.backbone import Backbone
from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine.geometry import AREA_SCALES, MAP_DIM

Module = TypeVar("Module", bound=nn.Module)

EXPANSION = Bottleneck.expansion  # output channels of a block divided by its `planes`


@dataclass(frozen=True)
class Stage:
    """A ResNet stage: inner and output channels of its bottlenecks, and the number of blocks that are not empty."""

    width: int
    channels: int
    blocks: int


@dataclass(frozen=True)
class Widths:
    """Widths of the narrow network. Stage 3 keeps all of its blocks, because its map is read inside the last one."""

    stem: int = 32
    stages: tuple[Stage, ...] = (Stage(32, 64, 2), Stage(64, 128, 3), Stage(80, 256, 6), Stage(96, 384, 2))
    descriptor: int = 384


WIDTHS = Widths()  # of the shipped model


def slim_model(widths: Widths) -> CVNet:
    """Return a `CVNet` with a narrow trunk, a narrow whitening layer, and 1x1 projections."""
    model = CVNet(50)
    narrow(model.backbone, widths)
    local = widths.stages[2].channels
    model.reranker.projections = nn.ModuleList(nn.Conv2d(local, MAP_DIM, 1, bias=False) for _ in AREA_SCALES)
    return model


def narrow(backbone: Backbone, widths: Widths) -> None:
    """Replace the layers of a backbone by narrower ones."""
    trunk, channels = backbone.trunk, widths.stem
    trunk.conv1, trunk.bn1 = nn.Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels)
    for number, stage in enumerate(widths.stages, 1):
        blocks = [block(channels, stage, 1 if number == 1 else 2, first=True)]
        blocks += [block(stage.channels, stage) for _ in range(stage.blocks - 1)]
        setattr(trunk, f"layer{number}", nn.Sequential(*blocks))
        channels = stage.channels
    backbone.whiten = nn.Linear(channels, widths.descriptor)
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, Bottleneck):
            nn.init.constant_(module.bn3.weight, 0.2)  # near the identity, so that depth does not hurt at the start


def channels_last(module: Module) -> Module:
    """Convert the kernels to channels-last order in place; returns the module."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # which torch's overloads leave out
    return module


def block(inputs: int, stage: Stage, stride: int = 1, first: bool = False) -> Bottleneck:
    """Return a block; the first one of a stage changes the number of channels and, with stride 2, halves the map."""
    planes, shortcut = stage.channels // EXPANSION, None
    if first:
        conv = nn.Conv2d(inputs, stage.channels, 1, stride, bias=False)
        shortcut = nn.Sequential(conv, nn.BatchNorm2d(stage.channels))
    return Bottleneck(inputs, planes, stride, shortcut, base_width=64 * stage.width // planes)
