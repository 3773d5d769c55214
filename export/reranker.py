"""The reranker in factored form: per-image work is done once per image, and matrix products remain per pair.

Bilinear resizing is linear on each side and the ReLU follows it. The published correlation
`relu(resize4d(cosine(q_i, k_j)))` therefore equals `relu(U_i · U_j)`, where U are the resized L2-normalised maps, and
no 4D resize is needed. Block 1 has stride 2, so each of its two halves reads the correlation only at even positions of
the other side, and the full nine-channel tensor is never computed. `export.reranker_graph` builds the graph.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn import functional as F

from cvnet_engine.cvnet.reranker import Reranker, resize
from cvnet_engine.engine.geometry import unit_map_sizes


class UnitMaps(nn.Module):
    """The per-image part of the reranker: three projected maps, L2-normalised per position."""

    def __init__(self, reranker: Reranker) -> None:
        super().__init__()
        self.projections = reranker.projections

    def forward(self, feature_map: Tensor) -> tuple[Tensor, ...]:
        """Map (B, 1024, h, w) to three maps (B, 256, h_s, w_s) for area scales 0.25, 0.5 and 1."""
        height, width = feature_map.shape[2:]
        *smaller, _full = unit_map_sizes((height, width))
        pyramid = [*(resize(feature_map, *size) for size in smaller), feature_map]
        projected = [projection(x) for projection, x in zip(self.projections, pyramid, strict=True)]
        return tuple(F.normalize(x, dim=1) for x in projected)  # a zero vector stays zero


def key_major(conv: nn.Conv2d) -> nn.Conv2d:
    """Return `conv` with its nine input channels reordered from 3·i + j to 3·j + i."""
    out = copy.deepcopy(conv)
    weight = conv.weight.view(-1, 3, 3, *conv.kernel_size).transpose(1, 2).flatten(1, 2)  # (C', 9, 5, 5)
    out.weight = nn.Parameter(weight, requires_grad=False)
    return out
