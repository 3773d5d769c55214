"""Last training stage: the reranker's head learns to predict votes from fixed features.

Run `python -m training.verifier FOLDER --photographs UNSEEN` after the whitening. It uses scenes that the backbone was
not trained on, because features of the training scenes are better than those of new scenes. One view of each image is
extracted once; pairs are drawn from these features. Most wrong keys are images with descriptors similar to the query's.

The target is the number of matches of two feature maps that agree on one shift and scale: a Hough transform (Ballard,
1981) over shifts, at a few scales. It separates right pairs from look-alikes far better than a count of matches, but no
convolution can compute it, because whether two positions are mutual nearest neighbours depends on all others. Labels
are used only to draw pairs: as targets, with look-alikes, they teach the head accidental differences between these
scenes (docs/demo-model.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.random import Generator
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

import scenes
from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.cvnet.reranker import CorrelationLearner
from cvnet_engine.engine.contract import Array
from cvnet_engine.export.reranker import UnitMaps, key_major
from training import stages
from training.factored_reranker import FactoredReranker, full_size
from training.head_start import start_counting
from training.pairs import normalised
from training.photographs import subjects_of_scenes
from training.slim import WIDTHS, Widths, channels_last, slim_model
from training.views import Subjects, Warps, common, whole_view

WARPS = Warps(shift=0.06, turn_deg=4.0, perspective=0.05)
SCALES = (0.5, 0.63, 0.8, 1.0, 1.25, 1.6, 2.0)  # scale of the subject in the key relative to the query
TOLERANCE = 1.5  # positions, in x and in y
EVEN_VOTES = 44.0  # of a look-alike pair that is equally likely right or wrong (validation scenes)
SLOPE = 3.0  # slope of a target logit over the logarithm of votes


@dataclass(frozen=True)
class Recipe(stages.Recipe):
    """Parameters of the stage."""

    seed: int = 1
    steps: int = 2000  # with one query per process
    rate: float = 1e-3
    warm_up: int = 20
    decay: float = 0.01
    sizes: tuple[tuple[int, int], ...] = (
        *[(240, 320), (320, 240), (360, 480), (480, 360)] * 2,
        (480, 640),
        (576, 768),
    )  # (height, width) px of the views, in turn
    positives: int = 2  # right keys per query
    rivals: int = 2  # wrong keys similar to the query
    strangers: int = 1  # random wrong keys
    most_alike: int = 20  # number of most similar images of other scenes to draw rivals from
    samples: int = 8  # queries whose pairs determine the scale of the head's initial weights


@dataclass(frozen=True)
class Kept:
    """Extracted features of all images.

    Attributes:
        maps: per image, three L2-normalised maps (1, C, h_s, w_s).
        owners: scene of each image, (n,).
        positives: per image, the rows of right keys.
        rivals: rows of similar images of other scenes, (n, r).
    """

    maps: list[tuple[Tensor, ...]]
    owners: Array  # (n,)
    positives: list[list[int]]
    rivals: Array  # (n, r)

    def of(self, row: int) -> list[Tensor]:
        """Return the feature maps of an image, float32."""
        return [unit_map.float() for unit_map in self.maps[row]]

    def correlation(self, query: int, key: int) -> Tensor:
        """Return the correlation (1, 9, hq, wq, hk, wk), as in `cvnet.reranker`."""
        (q,), (k,) = (full_size(*self.of(row)) for row in (query, key))  # (3, C, h, w)
        return torch.einsum("ichw,jcuv->ijhwuv", q, k).relu().flatten(0, 1)[None]


@torch.inference_mode()
def describe(model: CVNet, subjects: Subjects, recipe: Recipe) -> Kept:
    """Extract one view of every image."""
    maps: list[tuple[Tensor, ...]] = []
    descriptors = []
    numbers = [(s, p) for s, pictures in enumerate(subjects) for p in range(len(pictures))]
    for row, (subject, picture) in enumerate(track(numbers, "describing")):
        rng = np.random.default_rng((recipe.seed, row, 2))
        view = whole_view(rng, subjects[subject][picture], recipe.sizes[row % len(recipe.sizes)], WARPS)
        with torch.autocast("cpu", torch.bfloat16):
            descriptor, feature_map = model(normalised(torch.from_numpy(view)[None]))
            maps.append(tuple(unit_map.half() for unit_map in UnitMaps(model.reranker)(feature_map)))
        descriptors.append(F.normalize(descriptor.float(), dim=1))
    positives = [
        [other for other, (s, p) in enumerate(numbers) if s == subject and p != picture
         and common(subjects[s][picture], subjects[s][p])]
        for subject, picture in numbers
    ]  # fmt: skip
    owners = np.array([subject for subject, _ in numbers])
    similarities = (torch.cat(descriptors) @ torch.cat(descriptors).T).numpy()
    return Kept(maps, owners, positives, nearest(similarities, owners, recipe.most_alike))


def nearest(similarities: Array, owners: Array, count: int) -> Array:
    """Return the rows of other subjects most similar to each row, (n, count)."""
    return np.argsort(-np.where(owners[:, None] == owners, -1, similarities), axis=1)[:, :count]


def head_of(model: CVNet) -> FactoredReranker:
    """Return the trainable head in factored form; it shares all weights with the model except one, see `put_back`."""
    return FactoredReranker(model.reranker).requires_grad_(True)


def put_back(head: FactoredReranker, model: CVNet) -> None:
    """Write the one kernel back to the model that the factored form holds as a reordered copy."""
    model.reranker.learner.block1[0].conv1 = key_major(head.over_query)  # the reordering is its own inverse


def draw(rng: Generator, kept: Kept, recipe: Recipe) -> tuple[int, list[int]]:
    """Draw a query that has positives, and its keys, positives first."""
    query = int(rng.choice([row for row, positives in enumerate(kept.positives) if positives]))
    kinds = (
        (kept.positives[query], recipe.positives),
        (kept.rivals[query], recipe.rivals),
        (np.flatnonzero(kept.owners != kept.owners[query]), recipe.strangers),
    )
    return query, [int(key) for rows, count in kinds for key in rng.choice(rows, count)]


def votes(query: Tensor, key: Tensor) -> Tensor:
    """Return the sum () of the similarities of mutual nearest neighbours that agree best on one scale and shift.

    Args:
        query, key: L2-normalised feature maps (256, hq, wq) and (256, hk, wk).
    """
    similarities = query.flatten(1).T @ key.flatten(1)  # (Q, K)
    best, keys = similarities.max(dim=1)
    mutual = (similarities.argmax(dim=0)[keys] == torch.arange(len(keys))).nonzero()[:, 0]  # never empty
    weights = best[mutual].clamp(min=0)
    first, second = places(mutual, query), places(keys[mutual], key)
    shifts = [second - scale * first for scale in SCALES]
    agree = [torch.cdist(shift, shift, p=torch.inf) <= TOLERANCE for shift in shifts]
    return torch.stack([(a.float() @ weights).max() for a in agree]).max()


def places(positions: Tensor, unit_map: Tensor) -> Tensor:
    """Convert position numbers (n,) of a map to x and y, (n, 2) float32."""
    width = unit_map.shape[-1]
    return torch.stack([positions % width, positions // width], dim=1).float()


def target(query: Tensor, key: Tensor) -> Tensor:
    """Return the target logit () of a pair of full-scale feature maps (1, 256, h, w)."""
    return SLOPE * ((1 + votes(query[0], key[0])) / (1 + EVEN_VOTES)).log()


def imitation_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss between logits (n, 2) and target logits (n,): squared error plus cross entropy."""
    logits = logits[:, 1] - logits[:, 0]
    numbers = F.mse_loss(logits / SLOPE, targets / SLOPE)
    return numbers + F.binary_cross_entropy_with_logits(logits, targets.sigmoid())


def train(rank: int, recipe: Recipe, model: CVNet, kept: Kept, folder: Path) -> None:
    """Run one of the processes of this stage, see `stages.train`."""
    torch.manual_seed(recipe.seed)
    learner = model.reranker.learner = CorrelationLearner()
    samples = [draw(np.random.default_rng((recipe.seed, n, 5)), kept, recipe) for n in range(recipe.samples)]
    start_counting(learner, [kept.correlation(q, key) for q, keys in samples for key in (keys[0], keys[-1])])
    head = head_of(model)
    optimizer = torch.optim.AdamW(head.parameters(), recipe.rate, weight_decay=recipe.decay)

    def losses_from(first: int) -> Iterator[dict[str, Tensor]]:
        for step in range(first, recipe.steps):
            query, keys = draw(np.random.default_rng((recipe.seed, step, rank, 6)), kept, recipe)
            maps, others = kept.of(query), [kept.of(key) for key in keys]
            logits = torch.cat([head(*maps, *other)[0] for other in others])
            targets = torch.stack([target(maps[-1], other[-1]) for other in others])
            yield {"loss": imitation_loss(logits, targets)}

    stages.train(rank, recipe, stages.Progress(folder, "verifier", recipe, head, optimizer), losses_from, 1.0)


def load(folder: Path, widths: Widths = WIDTHS) -> CVNet:
    """Load the narrow model with the stages trained so far.

    Raises:
        WeightsError: the first stage has not been run.
    """
    model = slim_model(widths)
    model.load_state_dict(stages.read(folder, "backbone"))
    if (folder / "whitening.pt").is_file():
        model.backbone.whiten.load_state_dict(stages.read(folder, "whitening"))
    if (folder / "verifier.pt").is_file():
        head = head_of(model)
        head.load_state_dict(stages.read(folder, "verifier"))
        put_back(head, model)
    return channels_last(model.eval().requires_grad_(False))


def main(
    folder: Annotated[Path, typer.Argument(help="Where the stages before left their weights.")],
    photographs: Annotated[Path, typer.Option(help="Written by training.photographs --unseen.")],
) -> None:
    """Train the reranker's head."""
    stages.one_thread()
    recipe, model = Recipe(), load(folder)
    kept = describe(model, subjects_of_scenes(photographs, scenes.UNSEEN.scenes), recipe)
    stages.start(train, (recipe, model, kept, folder), recipe.processes)


if __name__ == "__main__":
    typer.run(main)
