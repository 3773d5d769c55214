"""The three deployed graphs (descriptor, features, reranker): PyTorch modules, names and dynamic axes."""

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
    """A graph to export.

    Attributes:
        module: makes the module to trace from the model; None for the reranker, see `export.reranker_graph`.
        inputs: axes by input name: a number for a fixed axis, a name for a dynamic one. Equal names are equal sizes.
        trace_size: size of the first dynamic spatial axis in tracing; each further axis is one larger.
    """

    name: str
    module: Callable[[CVNet], nn.Module] | None
    inputs: dict[str, tuple[int | str, ...]]
    outputs: tuple[str, ...]
    trace_size: int = 0


class Features(nn.Module):
    """Features of a normalised image (B, 3, H, W): descriptor (B, 2048) and three L2-normalised maps."""

    def __init__(self, model: CVNet) -> None:
        super().__init__()
        self.backbone = folded(model.backbone)
        self.unit_maps = UnitMaps(model.reranker)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        descriptor, feature_map = self.backbone(image)
        return descriptor, *self.unit_maps(feature_map)


def folded(backbone: Backbone) -> Backbone:
    """Return a copy with the batch norms folded into the convolutions.

    The exporter does not fold convolutions that are called twice, as SuperGlobal's two passes do.
    """
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
