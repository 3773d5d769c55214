"""Batches of image pairs to train the backbone on: half from generated scenes, half from collages."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import DatasetError
from cvnet_engine.engine.images import MEAN, STD
from training.collages import SIDE_PX, collage
from training.photographs import Photograph, read_scene, scene_file
from training.views import Source, Warps, make_pair

SIZES = ((160, 160), (136, 192), (192, 136))  # (height, width) px of a batch's crops


@dataclass(frozen=True)
class Sources:
    """All images per subject: a scene's photographs, or a collage twice."""

    subjects: list[tuple[Source, ...]]

    @classmethod
    def of_scenes(cls, folder: Path, count: int) -> Sources:
        """Read the photographs of `count` scenes.

        Raises:
            DatasetError: scenes have not been rendered.
        """
        files = [scene_file(folder, index) for index in range(count)]
        missing = sum(not file.is_file() for file in files)
        if missing:
            raise DatasetError(
                f"{folder}: {missing} of {count} training scenes missing; run python -m training.photographs {folder}"
            )
        with ThreadPoolExecutor() as pool:
            return cls(list(pool.map(lambda file: tuple(map(source, read_scene(file))), files)))

    @classmethod
    def of_collages(cls, seed: int, count: int) -> Sources:
        whole, seen = np.diag([SIDE_PX - 1.0, SIDE_PX - 1.0, 1.0]), np.ones((SIDE_PX // 8, SIDE_PX // 8), bool)
        with ThreadPoolExecutor() as pool:
            pictures = list(pool.map(partial(collage, seed), range(count)))
        return cls([(Source(picture, whole, seen),) * 2 for picture in pictures])


def source(photograph: Photograph) -> Source:
    return Source(photograph.picture(), photograph.to_picture, photograph.seen)


@dataclass(frozen=True)
class Pairs(Dataset[tuple[Array, Array]]):
    """Step -> crops (P, 2, H, W, 3) uint8 and points (P, 2, POINTS, 2) px; all subjects of a batch are different."""

    seed: int
    kinds: tuple[Sources, ...]
    batch: int  # pairs
    steps: int
    warps: Warps = field(default_factory=Warps)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Array, Array]:
        rng = np.random.default_rng((self.seed, step))
        size = SIZES[step % len(SIZES)]
        pairs = []
        for kind in self.kinds:
            for subject in rng.choice(len(kind.subjects), self.batch // len(self.kinds), replace=False):
                pictures = kind.subjects[subject]
                first, second = rng.choice(len(pictures), 2, replace=False)
                pairs.append(make_pair(rng, (pictures[first], pictures[second]), size, self.warps))
        return np.stack([pair.crops for pair in pairs]), np.stack([pair.points for pair in pairs])


def normalised(images: Tensor) -> Tensor:
    """Convert (B, H, W, 3) uint8 to the network input (B, 3, H, W) float32."""
    scaled = (images.float() / 255 - torch.from_numpy(MEAN)) / torch.from_numpy(STD)
    return scaled.permute(0, 3, 1, 2)  # stays channels-last in memory, which is faster here
