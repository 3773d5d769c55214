"""Groups to train the reranker's head on: a query, views of the same subject, and views of others that look alike."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from torch.utils.data import Dataset

from engine.session import Array
from training.pairs import Sources
from training.views import Source, Warps, develop, project, random_warp, visible, warp_picture

SIZES = ((240, 320), (320, 240), (288, 288), (192, 256), (336, 448))  # (height, width) px of a group's pictures
COMMON = 0.2  # least share of the query's visible subject that a positive shows
CANDIDATES = 256  # points that measure it


@dataclass(frozen=True)
class Groups(Dataset[tuple[Array, Array]]):
    """Step -> pictures (1 + keys, H, W, 3) uint8, the query first, and labels (keys,) int64, 1 for its subject.

    Attributes:
        kinds: as in `Pairs`; a group's pictures are all of one kind, the first kind being drawn `first_share` of times.
        rivals: for each kind the subjects (n, r) that look most like each one.
        positives, negatives: keys of each sort.
    """

    seed: int
    kinds: tuple[Sources, ...]
    rivals: tuple[Array, ...]
    steps: int
    first_share: float = 0.75
    positives: int = 3
    negatives: int = 4
    warps: Warps = field(default_factory=lambda: Warps(shift=0.06, turn_deg=4.0, perspective=0.05))

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Array, Array]:
        rng = np.random.default_rng((self.seed, step, 2))
        kind = 0 if rng.random() < self.first_share else 1
        subjects = self.kinds[kind].subjects
        query_subject = int(rng.integers(len(subjects)))
        size = SIZES[rng.integers(len(SIZES))]
        pictures = subjects[query_subject]
        first = int(rng.integers(len(pictures)))
        alike = [other for number, other in enumerate(pictures) if number != first and common(pictures[first], other)]
        chosen = [alike[i] for i in rng.integers(0, len(alike), self.positives)] if alike else []
        for rival in rng.choice(self.rivals[kind][query_subject], self.negatives + self.positives - len(chosen)):
            chosen.append(subjects[rival][rng.integers(len(subjects[rival]))])
        keys = [self.view(rng, source, size) for source in chosen]
        labels = np.arange(len(keys)) < (self.positives if alike else 0)
        return np.stack([self.view(rng, pictures[first], size), *keys]), labels.astype(np.int64)

    def view(self, rng: Generator, source: Source, size: tuple[int, int]) -> Array:
        """The whole picture or most of it, (H, W, 3) uint8."""
        height, width = source.picture.shape[:2]
        whole = np.sqrt(size[0] * size[1] / (height * width))  # pixels of the view a pixel of the picture
        zoom = whole * np.exp(rng.uniform(-0.1, 0.45))
        warp = random_warp(rng, np.array([width, height]) / 2, zoom, size, self.warps)
        return develop(rng, warp_picture(source.picture, warp, zoom, size))


def common(query: Source, other: Source) -> bool:
    """Whether a picture shows enough of what the query shows of their subject."""
    side = int(np.sqrt(CANDIDATES))
    points = (np.stack(np.mgrid[:side, :side], -1).reshape(-1, 2) + 0.5) / side
    seen = visible(query, points)
    spread = np.ptp(project(other.to_picture, points), axis=0)  # px
    large = bool((spread > 0.2 * np.array(other.picture.shape[1::-1])).all())
    return large and (seen & visible(other, points)).sum() >= COMMON * max(seen.sum(), 1)
