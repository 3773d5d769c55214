"""First training stage: the narrow network learns to distinguish subjects, and positions within them.

`python -m training.backbone FOLDER --photographs PHOTOGRAPHS` runs it; an interrupted run resumes.

Each step uses a batch of pairs of crops. The loss is the sum of three contrastive losses: of descriptors; of stage-3
features at corresponding points, projected and L2-normalised as in the reranker; of such features across two of the
reranker's scales.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

import scenes
from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.export.reranker import UnitMaps
from training.checkpoints import Progress
from training.losses import contrast, local_contrast
from training.pairs import Pairs, Sources, normalised
from training.processes import average_gradients, one_thread, start, together
from training.slim import Widths, channels_last, slim_model

SAVED_EVERY = 50  # steps
NOTED_EVERY = 10


@dataclass(frozen=True)
class Recipe:
    """Parameters of the first stage."""

    seed: int = 0
    widths: Widths = field(default_factory=Widths)
    steps: int = 1200
    processes: int = 2
    batch: int = 32  # pairs per process
    collages: int = 600
    rate: float = 3e-3
    warm_up: int = 30  # steps
    decay: float = 0.02
    global_temperature: float = 0.07
    local_temperature: float = 0.07
    local_share: float = 1.0  # weight of the local losses


def losses(model: CVNet, crops: Tensor, points: Tensor, scales: tuple[int, int], recipe: Recipe) -> dict[str, Tensor]:
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

    def local(i: int, j: int) -> Tensor:
        return local_contrast(halves[i][0], halves[j][1], points, size, recipe.local_temperature)

    return {
        "global": contrast(first, second, recipe.global_temperature),
        "local": recipe.local_share * local(2, 2),
        "across": recipe.local_share / 2 * local(*scales),
    }


def train(rank: int, recipe: Recipe, pairs: Pairs, folder: Path, workers: int = 1) -> None:
    """Run one of the processes of this stage, from the folder's checkpoint to the end.

    Raises:
        WeightsError: see `Progress.resume`.
    """
    torch.manual_seed(recipe.seed)
    model = channels_last(slim_model(recipe.widths)).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe.decay), recipe.rate)
    progress = Progress(folder, "backbone", repr(recipe), model, optimizer)
    progress.resume()
    batches = range(progress.step * recipe.processes + rank, recipe.steps * recipe.processes, recipe.processes)
    with together(rank, recipe.processes, folder):
        for crops, points in DataLoader(Subset(pairs, batches), None, num_workers=workers):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * schedule(progress.step, recipe.steps, recipe.warm_up)
            scales = np.random.default_rng((recipe.seed, progress.step, 1)).integers(0, 3, 2).tolist()
            parts = losses(model, crops, points, scales, recipe)
            optimizer.zero_grad()
            torch.autograd.backward(torch.stack(list(parts.values())).sum())
            average_gradients(model)
            optimizer.step()
            progress.step += 1
            if rank == 0:
                keep(progress, recipe.steps, {name: part.item() for name, part in parts.items()})


def keep(progress: Progress, steps: int, facts: dict[str, float]) -> None:
    """Log and save at their intervals."""
    if progress.step % NOTED_EVERY == 0:
        progress.note(**{name: round(value, 4) for name, value in facts.items()})
    if progress.step % SAVED_EVERY == 0 or progress.step == steps:
        progress.save()


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    """Apply weight decay only to matrices and kernels; the reranker's head is not trained here."""
    trained = [p for name, p in model.named_parameters() if not name.startswith("reranker.learner")]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
    ]


def schedule(step: int, steps: int, warm_up: int) -> float:
    """Return the factor of the learning rate: linear warm-up, then half a cosine down to 0."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def main(
    folder: Annotated[Path, typer.Argument(help="For the checkpoint and the log.")],
    photographs: Annotated[Path, typer.Option(help="Written by training.photographs.")],
) -> None:
    """Train the narrow backbone and the reranker's projections."""
    one_thread()
    recipe = Recipe()
    kinds = (
        Sources.of_scenes(photographs, scenes.TRAINING.scenes),
        Sources.of_collages(recipe.seed, recipe.collages),
    )
    pairs = Pairs(recipe.seed, kinds, recipe.batch, recipe.steps * recipe.processes)
    folder.mkdir(parents=True, exist_ok=True)
    start(train, (recipe, pairs, folder), recipe.processes)


if __name__ == "__main__":
    typer.run(main)
