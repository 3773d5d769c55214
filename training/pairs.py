"""Batches of image pairs to train the backbone on: half from generated scenes, half from collages."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.images import MEAN, STD
from training.collages import SIDE_PX, collage
from training.views import Source, Subjects, Warps, make_pair

SIZES = ((160, 160), (136, 192), (192, 136))  # (height, width) px of a batch's crops


def subjects_of_collages(seed: int, count: int) -> Subjects:
    """Draw collages; the two images of each are the same."""
    whole, seen = np.diag([SIDE_PX - 1.0, SIDE_PX - 1.0, 1.0]), np.ones((SIDE_PX // 8, SIDE_PX // 8), bool)
    with ThreadPoolExecutor() as pool:
        return [(Source(picture, whole, seen),) * 2 for picture in pool.map(partial(collage, seed), range(count))]


@dataclass(frozen=True)
class Pairs(Dataset[tuple[Array, Array]]):
    """Step -> crops (P, 2, H, W, 3) uint8 and points (P, 2, POINTS, 2) px; all subjects of a batch are different."""

    seed: int
    kinds: tuple[Subjects, ...]
    batch: int  # pairs

    def __getitem__(self, step: int) -> tuple[Array, Array]:
        rng = np.random.default_rng((self.seed, step))
        size = SIZES[step % len(SIZES)]
        pairs = []
        for subjects in self.kinds:
            for subject in rng.choice(len(subjects), self.batch // len(self.kinds), replace=False):
                images = subjects[subject]
                first, second = rng.choice(len(images), 2, replace=False)
                pairs.append(make_pair(rng, (images[first], images[second]), size, Warps()))
        crops, points = zip(*pairs, strict=True)
        return np.stack(crops), np.stack(points)


def normalised(images: Tensor) -> Tensor:
    """Convert (B, H, W, 3) uint8 to the network input (B, 3, H, W) float32."""
    scaled = (images.float() / 255 - torch.from_numpy(MEAN)) / torch.from_numpy(STD)
    return scaled.permute(0, 3, 1, 2)  # stays channels-last in memory, which is faster here
