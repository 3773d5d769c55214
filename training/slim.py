"""A narrow ResNet that fits into the published one: few enough numbers to train here and to ship.

A narrow network *is* a published one in which the remaining channels are zero and the remaining blocks add nothing
(`cvnet.demo` lays it out so). It is trained narrow, at a sixteenth of the arithmetic.
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

EXPANSION = Bottleneck.expansion  # a block's output channels over its `planes`


@dataclass(frozen=True)
class Stage:
    """One of the four: channels inside a bottleneck and behind it, and how many blocks do something."""

    width: int
    channels: int
    blocks: int


@dataclass(frozen=True)
class Widths:
    """The narrow network. Stage 3 keeps all of its blocks: its map is read inside the last one."""

    stem: int = 32
    stages: tuple[Stage, ...] = (Stage(32, 64, 2), Stage(64, 128, 3), Stage(80, 256, 6), Stage(96, 384, 2))
    descriptor: int = 384


def slim_model(widths: Widths) -> CVNet:
    """`CVNet` with a narrow trunk, a narrow whitening, and projections that read one position each."""
    model = CVNet(50)
    narrow(model.backbone, widths)
    local = widths.stages[2].channels
    model.reranker.projections = nn.ModuleList(nn.Conv2d(local, MAP_DIM, 1, bias=False) for _ in AREA_SCALES)
    return model


def narrow(backbone: Backbone, widths: Widths) -> None:
    """Replaces the layers of a backbone by narrower ones."""
    trunk, channels = backbone.trunk, widths.stem
    trunk.conv1, trunk.bn1 = nn.Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels)
    for number, stage in enumerate(widths.stages, 1):
        blocks = [first_block(channels, stage, 1 if number == 1 else 2)]
        blocks += [block(stage.channels, stage) for _ in range(stage.blocks - 1)]
        setattr(trunk, f"layer{number}", nn.Sequential(*blocks))
        channels = stage.channels
    backbone.whiten = nn.Linear(channels, widths.descriptor)
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, Bottleneck):
            nn.init.constant_(module.bn3.weight, 0.2)  # near the identity, so that depth does no harm at first


def channels_last(module: Module) -> Module:
    """The module itself, its kernels in channels-last order."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # which torch's overloads leave out
    return module


def first_block(inputs: int, stage: Stage, stride: int) -> Bottleneck:
    """The block that changes the number of channels and halves the map."""
    shortcut = nn.Sequential(nn.Conv2d(inputs, stage.channels, 1, stride, bias=False), nn.BatchNorm2d(stage.channels))
    return block(inputs, stage, stride, shortcut)


def block(inputs: int, stage: Stage, stride: int = 1, shortcut: nn.Module | None = None) -> Bottleneck:
    planes = stage.channels // EXPANSION
    return Bottleneck(inputs, planes, stride, shortcut, base_width=64 * stage.width // planes)
