"""A contender with something to score, and whether it may be timed: what computes something else is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvnet_engine.benchmarks.contenders.contender import Contender
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import BackendError, CvnetError, one_line
from cvnet_engine.engine.features import Features
from cvnet_engine.export.parity import TOLERANCE

MAP_ROUNDING = 2e-5  # by which float16 maps may move a score, beyond what the engine does (decision 001 saw 1.2e-5)


@dataclass(frozen=True)
class Entrant:
    """A contender, and its features of a query and of some keys, all of one size."""

    contender: Contender
    query: Features
    keys: list[Features]

    def scores(self) -> Array:
        """(len(keys),) float32."""
        retriever = self.contender.retriever
        return np.array([retriever.score(self.query, [key])[0] for key in self.keys])


@dataclass(frozen=True)
class Agreement:
    """Largest distances from the reference: of a pair score, and of a unit descriptor."""

    score: float
    descriptor: float


@dataclass(frozen=True)
class Field:
    """Who takes part at one image size, the reference first; how far each is from it, and why others are out."""

    entrants: list[Entrant]
    agreements: dict[str, Agreement]
    refused: dict[str, str]


def enter(contenders: Sequence[Contender], images: Sequence[Array]) -> Field:
    """Let every contender describe the images (H, W, 3) uint8, query first, and those take part that agree.

    The others are held against the first contender; bundles get their maps in float16, as a gallery stores them.
    """
    reference = prepare(contenders[0], images)
    entrants, agreements, refused = [reference], {}, {}
    for contender in contenders[1:]:
        try:
            entrant = prepare(contender, images)
            agreements[contender.name] = agreement(entrant, reference)
            entrants.append(entrant)
        except (CvnetError, RuntimeError) as error:  # what torch.compile raises is a RuntimeError
            refused[contender.name] = one_line(error)
    return Field(entrants, agreements, refused)


def prepare(contender: Contender, images: Sequence[Array]) -> Entrant:
    dtype = np.float32 if contender.is_reference else np.float16
    described = [contender.retriever.extract(image) for image in images]
    query, *keys = [Features(f.descriptor, tuple(m.astype(dtype) for m in f.maps)) for f in described]
    return Entrant(contender, query, keys)


def agreement(entrant: Entrant, reference: Entrant) -> Agreement:
    """How far an entrant is from the reference, features included.

    Raises:
        BackendError: farther than its precision allows.
    """
    score = float(np.abs(entrant.scores() - reference.scores()).max())
    pairs = zip([entrant.query, *entrant.keys], [reference.query, *reference.keys], strict=True)
    descriptor = max(float(np.linalg.norm(ours.descriptor - theirs.descriptor)) for ours, theirs in pairs)
    tolerance = TOLERANCE[entrant.contender.precision]
    most_score, most_descriptor = tolerance["score"] + MAP_ROUNDING, tolerance["descriptor"]
    if not (score <= most_score and descriptor <= most_descriptor):
        raise BackendError(
            f"a pair score differs from PyTorch by {score:.1e} and a descriptor by {descriptor:.1e}; expected at most "
            f"{most_score:.0e} and {most_descriptor:.0e}: not timed"
        )
    return Agreement(score, descriptor)
