"""The second stage: the reranker's head learns to verify, over the first stage's features, which no longer change.

`python -m training.verifier FOLDER --photographs PHOTOGRAPHS` trains it in the folder of the first stage.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

from benchmarks import scenes
from cvnet.model import CVNet
from cvnet.reranker import CorrelationLearner
from engine.session import Array
from export.reranker import FactoredReranker, UnitMaps, key_major
from training import checkpoints
from training.backbone import keep, schedule
from training.checkpoints import Progress
from training.groups import Groups
from training.pairs import Sources, normalised
from training.processes import average_gradients, one_thread, start, together
from training.slim import Widths, slim_model

DESCRIBED = 2  # pictures of a subject, to find what looks like it


@dataclass(frozen=True)
class Recipe:
    """What the second stage does."""

    seed: int = 0
    widths: Widths = field(default_factory=Widths)
    steps: int = 800
    processes: int = 2  # each scores a group a step
    collages: int = 600
    rivals: int = 12  # subjects that look most like the query's, from which wrong keys are drawn
    rate: float = 2e-3
    warm_up: int = 50  # steps
    decay: float = 0.01


def head_of(model: CVNet) -> FactoredReranker:
    """The head in factored form, to be trained; all of its weights are the model's own but one, see `put_back`."""
    return FactoredReranker(model.reranker).requires_grad_(True)


def put_back(head: FactoredReranker, model: CVNet) -> None:
    """Write to the model the one kernel that the factored form holds as a re-ordered copy."""
    model.reranker.learner.block1[0].conv1 = key_major(head.over_query)  # the re-ordering undoes itself


@torch.inference_mode()
def describe(model: CVNet, sources: Sources) -> Array:
    """One descriptor a subject, the mean of its first pictures', (n, C) of unit norm."""
    rows = []
    for pictures in sources.subjects:
        shown = [cv2.resize(source.picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for source in pictures]
        with torch.autocast("cpu", torch.bfloat16):
            descriptors = torch.cat([model(normalised(torch.from_numpy(p)[None]))[0] for p in shown[:DESCRIBED]])
        rows.append(F.normalize(descriptors.float().mean(dim=0), dim=0))
    return torch.stack(rows).numpy()


def nearest(descriptors: Array, count: int) -> Array:
    """The subjects most like each one, itself left out, (n, count)."""
    similarities = descriptors @ descriptors.T
    np.fill_diagonal(similarities, -1)
    return np.argsort(-similarities, axis=1)[:, :count]


def logits_of(model: CVNet, head: FactoredReranker, pictures: Tensor) -> Tensor:
    """(1 + keys, H, W, 3) uint8, the query first -> logits (keys, 2)."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        maps = UnitMaps(model.reranker)(model(normalised(pictures))[1])
    maps = [unit_map.float().clone() for unit_map in maps]
    logits: Tensor = head(*(m[:1] for m in maps), *(m[1:] for m in maps))[0]
    return logits


def group_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Each key for itself, and the right ones against the wrong ones of their group."""
    alone = F.cross_entropy(logits, labels)
    if not labels.any():
        return alone
    margin = logits[:, 1] - logits[:, 0]
    wrong = margin[labels == 0].logsumexp(0)
    return alone + F.softplus(wrong - margin[labels == 1]).mean() / 4


def train(rank: int, recipe: Recipe, groups: Groups, model: CVNet, folder: Path, workers: int = 1) -> None:
    """One of the processes that run the stage to its end, from where the folder's checkpoint stands.

    Raises:
        WeightsError: see `Progress.resume`.
    """
    torch.manual_seed(recipe.seed)
    model.reranker.learner = CorrelationLearner()  # in each process the same
    head = head_of(model)
    optimizer = torch.optim.AdamW(head.parameters(), recipe.rate, weight_decay=recipe.decay)
    progress = Progress(folder, "verifier", repr(recipe), head, optimizer)
    progress.resume()
    batches = range(progress.step * recipe.processes + rank, recipe.steps * recipe.processes, recipe.processes)
    with together(rank, recipe.processes, folder):
        for pictures, labels in DataLoader(Subset(groups, batches), None, num_workers=workers):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * schedule(progress.step, recipe.steps, recipe.warm_up)
            logits = logits_of(model, head, pictures)
            loss = group_loss(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            average_gradients(head)
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            progress.step += 1
            if rank == 0:
                right = (logits.argmax(1) == labels).float().mean().item()
                keep(progress, recipe.steps, {"loss": loss.item(), "right": right})


def load(folder: Path, widths: Widths) -> CVNet:
    """The narrow model as far as it has been trained: after the first stage, or after both.

    Raises:
        WeightsError: the first stage has not been run.
    """
    model = slim_model(widths)
    model.load_state_dict(checkpoints.read(folder, "backbone"))
    if (folder / "verifier.pt").is_file():
        head = head_of(model)
        head.load_state_dict(checkpoints.read(folder, "verifier"))
        put_back(head, model)
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def main(
    folder: Annotated[Path, typer.Argument(help="Where the first stage left its checkpoint.")],
    photographs: Annotated[Path, typer.Option(help="Written by training.photographs.")],
) -> None:
    """Train the reranker's head."""
    one_thread()
    recipe = Recipe()
    model = slim_model(recipe.widths)
    model.load_state_dict(checkpoints.read(folder, "backbone"))
    model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    kinds = (
        Sources.of_scenes(photographs, scenes.TRAINING.scenes),
        Sources.of_collages(recipe.seed, recipe.collages),
    )
    rivals = tuple(nearest(describe(model, kind), recipe.rivals) for kind in kinds)
    groups = Groups(recipe.seed, kinds, rivals, recipe.steps * recipe.processes)
    start(train, (recipe, groups, model, folder), recipe.processes)


if __name__ == "__main__":
    typer.run(main)
