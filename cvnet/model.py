"""The whole CVNet model: a backbone that describes an image and a reranker that compares two."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cvnet_engine.cvnet.backbone import Backbone
from cvnet_engine.cvnet.reranker import Reranker
from cvnet_engine.cvnet.superglobal import SuperGlobal

BACKBONES = {"cvnet": Backbone, "superglobal": SuperGlobal}  # by descriptor


class CVNet(nn.Module):
    """The published model in PyTorch, on any device: the reference for every engine.

    Args:
        depth: 50 or 101, of the ResNet trunk.
        descriptor: one of `BACKBONES`; both use the same weights.
    """

    def __init__(self, depth: int, descriptor: str = "cvnet") -> None:
        super().__init__()
        self.depth, self.descriptor = depth, descriptor
        self.backbone = BACKBONES[descriptor](depth)
        self.reranker = Reranker()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Descriptor (B, 2048) of unit norm and local feature map (B, 1024, H/16, W/16), signed."""
        described: tuple[Tensor, Tensor] = self.backbone(image)
        return described

    @torch.inference_mode()
    def score(self, query: Tensor, key: Tensor) -> Tensor:
        """Pair score (B,) in 0..1 of two local feature maps (B, 1024, h, w)."""
        logits: Tensor = self.reranker(query, key)
        return logits.softmax(dim=1)[:, 1]
