"""First training stage: the narrow network learns to distinguish subjects, and positions within them.

`python -m training.backbone FOLDER --photographs PHOTOGRAPHS` runs it; an interrupted run resumes.

Each step uses a batch of pairs of crops. The loss is the sum of three contrastive losses: of descriptors; of stage-3
features at corresponding points, projected and L2-normalised as in the reranker; of such features across two of the
reranker's scales. Features of the same subject or point attract each other, others repel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import scenes
from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine.geometry import STRIDE_PX
from cvnet_engine.export.reranker import UnitMaps
from training import stages
from training.pairs import Pairs, normalised, subjects_of_collages
from training.photographs import subjects_of_scenes
from training.slim import channels_last, slim_model

TEMPERATURE = 0.07  # of all contrastive losses
NEAR_PX = 24  # points of one crop closer than this are not used as negatives


@dataclass(frozen=True)
class Recipe(stages.Recipe):
    """Parameters of the first stage."""

    seed: int = 0
    steps: int = 1200
    rate: float = 3e-3
    warm_up: int = 30
    decay: float = 0.02
    batch: int = 32  # pairs per process
    collages: int = 600


def losses(model: CVNet, crops: Tensor, points: Tensor, scales: tuple[int, int]) -> dict[str, Tensor]:
    """Return the losses of a batch.

    Args:
        crops: (P, 2, H, W, 3) uint8.
        points: corresponding points (P, 2, N, 2) px.
        scales: the two scales to compare.
    """
    size = crops.shape[2], crops.shape[3]
    with torch.autocast("cpu", torch.bfloat16):
        descriptors, feature_map = model(normalised(crops.transpose(0, 1).flatten(0, 1)))
        unit_maps = UnitMaps(model.reranker)(feature_map)  # three (2P, 256, h_s, w_s)
    first, second = F.normalize(descriptors.float(), dim=1).chunk(2)
    halves = [unit_map.chunk(2) for unit_map in unit_maps]
    i, j = scales
    return {
        "global": contrast(first, second),
        "local": local_contrast(halves[2][0], halves[2][1], points, size),
        "across": 0.5 * local_contrast(halves[i][0], halves[j][1], points, size),
    }


def contrast(a: Tensor, b: Tensor, void: Tensor | None = None) -> Tensor:
    """Return the symmetric InfoNCE loss (van den Oord et al., 2018): row i of `a` matches only row i of `b`.

    Args:
        a, b: (N, C) unit vectors.
        void: (N, N) bool, pairs to ignore.
    """
    logits = a.float() @ b.float().T / TEMPERATURE
    if void is not None:
        logits = logits.masked_fill(void, -1e4)
    labels = torch.arange(len(a))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def local_contrast(first: Tensor, second: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the `contrast` of feature vectors at corresponding points of all pairs.

    Args:
        first, second: L2-normalised feature maps (P, C, h', w') of the two crops of each pair.
        points: (P, 2, N, 2) px in crops of `size` (height, width); NaN for missing points.
    """
    valid = points[:, 0, :, 0].isfinite()  # (P, N)
    points = points.nan_to_num(0.0)
    a, b = (sample(m, points[:, side], size)[valid] for side, m in enumerate((first, second)))  # (M, C)
    return contrast(a, b, too_near(points, valid))


def sample(unit_map: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate a feature map at pixels (P, N, 2) of the crops; returns unit vectors (P, N, C)."""
    last = torch.tensor([size[1], size[0]]).sub(1).div(STRIDE_PX, rounding_mode="floor")  # the full map's last position
    grid = 2 * points / STRIDE_PX / last - 1
    sampled = F.grid_sample(unit_map.float(), grid[:, None], align_corners=True, padding_mode="border")  # (P, C, 1, N)
    return F.normalize(sampled[:, :, 0].transpose(1, 2), dim=2)


def too_near(points: Tensor, valid: Tensor) -> Tensor:
    """Return (M, M) bool over the valid points: different points of one pair that are close in either crop."""
    pair, number = valid.nonzero(as_tuple=True)
    kept = points.transpose(1, 2)[pair, number]  # (M, 2, 2)
    first, second = (torch.cdist(kept[:, side], kept[:, side]) < NEAR_PX for side in range(2))
    return ((first | second) & (pair[:, None] == pair)).fill_diagonal_(False)


def train(rank: int, recipe: Recipe, pairs: Pairs, folder: Path, workers: int = 1) -> None:
    """Run one of the processes of this stage, see `stages.train`."""
    torch.manual_seed(recipe.seed)
    model = channels_last(slim_model(recipe.widths)).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe.decay), recipe.rate)

    def losses_from(first: int) -> Iterator[dict[str, Tensor]]:
        batches = range(first * recipe.processes + rank, recipe.steps * recipe.processes, recipe.processes)
        for step, (crops, points) in enumerate(DataLoader(pairs, None, sampler=batches, num_workers=workers), first):
            i, j = np.random.default_rng((recipe.seed, step, 1)).integers(0, 3, 2).tolist()
            yield losses(model, crops, points, (i, j))

    stages.train(rank, recipe, stages.Progress(folder, "backbone", recipe, model, optimizer), losses_from)


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    """Apply weight decay only to matrices and kernels; the reranker's head is not trained here."""
    trained = [p for name, p in model.named_parameters() if not name.startswith("reranker.learner")]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
    ]


def main(
    folder: Annotated[Path, typer.Argument(help="For the checkpoint and the log.")],
    photographs: Annotated[Path, typer.Option(help="Written by training.photographs.")],
) -> None:
    """Train the narrow backbone and the reranker's projections."""
    stages.one_thread()
    recipe = Recipe()
    kinds = (
        subjects_of_scenes(photographs, scenes.TRAINING.scenes),
        subjects_of_collages(recipe.seed, recipe.collages),
    )
    folder.mkdir(parents=True, exist_ok=True)
    stages.start(train, (recipe, Pairs(recipe.seed, kinds, recipe.batch), folder), recipe.processes)


if __name__ == "__main__":
    typer.run(main)
