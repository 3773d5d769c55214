"""Loss by compressed maps: explained variance, and the change of pair scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.learnt_codec import LEARN_POSITIONS, LearntCodec, vectors_of
from cvnet_engine.engine.gallery.map_codec import MapCodec

SCORED = 8  # images whose pairs are scored

Score = Callable[[Features, Sequence[Features]], Array]  # query, candidates -> pair scores (n,); see `Engines.score`


@dataclass(frozen=True)
class ScoreChange:
    """Absolute change of pair scores when the database images' maps are compressed: mean and maximum over `pairs`."""

    pairs: int
    mean: float
    largest: float


@dataclass(frozen=True)
class Fidelity:
    """Loss by compressed maps, measured on the images that the compression was fitted to.

    Attributes:
        position_bytes: bytes per position.
        energy: explained variance, see `LearntCodec.energy`.
        scores: change of pair scores; None if there was no model to compute them.
    """

    position_bytes: int
    energy: float
    scores: ScoreChange | None = None

    @classmethod
    def of(cls, codec: LearntCodec, sample: Sequence[Features], score: Score | None) -> Fidelity:
        scores = score_change(score, codec, sample[:SCORED]) if score else None
        return cls(codec.position_bytes, codec.energy(vectors_of(sample, LEARN_POSITIONS)), scores)

    def __str__(self) -> str:
        kept = f"{self.position_bytes} B a position keep {self.energy:.2%} of the energy"
        if self.scores is None:
            return kept
        return (
            f"{kept}; scores of {self.scores.pairs} pairs among the first images change by {self.scores.mean:.4f} on "
            f"average, {self.scores.largest:.4f} at most"
        )


def score_change(score: Score, codec: MapCodec, sample: Sequence[Features]) -> ScoreChange:
    """Measure the change of pair scores, with each image as the query against itself and the next image."""
    changes = []
    for number, query in enumerate(sample):
        for key in sample[number : number + 2]:
            before, after = (score(query, [features])[0] for features in (key, kept(key, codec)))
            changes.append(abs(float(after - before)))
    return ScoreChange(len(changes), float(np.mean(changes)), max(changes))


def kept(features: Features, codec: MapCodec) -> Features:
    """Return features after encoding and decoding their maps."""
    maps = (codec.decode(scale, codec.encode(scale, m), *m.shape[1:]) for scale, m in enumerate(features.maps))
    return replace(features, maps=tuple(maps))
