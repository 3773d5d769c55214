"""The three graphs that are deployed, as PyTorch modules with their names and dynamic axes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cvnet_engine.cvnet.backbone import Backbone
from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine.geometry import MAP_DIM
from cvnet_engine.export.reranker import UnitMaps


@dataclass(frozen=True)
class Graph:
    """One graph to export: how it is made from the model, and the names of its axes.

    `module` is traced; the graph without one, the reranker, is built operator by operator.

    An axis is a number where it is fixed and a name where it is free; equal names are equal sizes.
    """

    name: str
    module: Callable[[CVNet], nn.Module] | None
    inputs: dict[str, tuple[int | str, ...]]
    outputs: tuple[str, ...]
    trace_size: int = 0  # of the first free axis when the graph is traced; the others follow, one larger each


class Features(nn.Module):
    """Normalised image (B, 3, H, W) -> descriptor and the three unit maps that the reranker reads."""

    def __init__(self, model: CVNet) -> None:
        super().__init__()
        self.backbone = folded(model.backbone)
        self.unit_maps = UnitMaps(model.reranker)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        descriptor, feature_map = self.backbone(image)
        return descriptor, *self.unit_maps(feature_map)


def folded(backbone: Backbone) -> Backbone:
    """A copy whose norms are part of their convolutions; the exporter itself folds none that two passes share."""
    copied = copy.deepcopy(backbone)
    for parent in list(copied.trunk.modules()):
        for (before, convolution), (name, norm) in pairwise(list(parent.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, before, fuse_conv_bn_eval(convolution, norm))
                setattr(parent, name, nn.Identity())
    return copied


FEATURES = Graph(
    "features", Features, {"image": ("batch", 3, "height", "width")}, ("descriptor", "map_0", "map_1", "map_2"), 96
)
DESCRIPTOR = replace(FEATURES, name="descriptor", outputs=("descriptor",))  # cut out of FEATURES, not exported
RERANKER = Graph(
    "reranker",
    None,
    {f"query_{s}": (1, MAP_DIM, f"query_height_{s}", f"query_width_{s}") for s in range(3)}
    | {f"key_{s}": ("batch", MAP_DIM, f"key_height_{s}", f"key_width_{s}") for s in range(3)},
    ("logits", "score"),
)
GRAPHS = (DESCRIPTOR, FEATURES, RERANKER)
