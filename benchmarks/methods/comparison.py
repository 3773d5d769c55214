"""Comparison of methods with PyTorch before they are timed: a method whose results differ is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvnet_engine.benchmarks.methods.method import Method
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import BackendError, CvnetError, one_line
from cvnet_engine.engine.features import Features
from cvnet_engine.export.parity import TOLERANCE

MAP_ROUNDING = 2e-5  # how far float16 maps may move a score in addition (1.2e-5 at most observed)


@dataclass(frozen=True)
class Prepared:
    """A method with its features of a query and of some database images (keys), all of one size."""

    method: Method
    query: Features
    keys: list[Features]

    def scores(self) -> Array:
        """Return the pair scores (len(keys),) float32."""
        engines = self.method.engines
        return np.array([engines.score(self.query, [key])[0] for key in self.keys])


@dataclass(frozen=True)
class Difference:
    """Largest differences from the reference, in pair score and in descriptor (L2 distance)."""

    score: float
    descriptor: float


@dataclass(frozen=True)
class Comparison:
    """Methods at one image size.

    Attributes:
        prepared: methods that agree with the reference, which comes first.
        differences: differences by method.
        refused: method -> reason.
    """

    prepared: list[Prepared]
    differences: dict[str, Difference]
    refused: dict[str, str]


def compare(methods: Sequence[Method], images: Sequence[Array]) -> Comparison:
    """Extract the images (H, W, 3) uint8, query first, with every method; keep those that agree with the first.

    Bundles' maps are converted to float16, as in a gallery.
    """
    reference = prepare(methods[0], images)
    agreeing, differences, refused = [reference], {}, {}
    for method in methods[1:]:
        try:
            prepared = prepare(method, images)
            differences[method.name] = difference(prepared, reference)
            agreeing.append(prepared)
        except (CvnetError, RuntimeError) as error:  # torch.compile raises RuntimeError
            refused[method.name] = one_line(error)
    return Comparison(agreeing, differences, refused)


def prepare(method: Method, images: Sequence[Array]) -> Prepared:
    dtype = np.float32 if method.is_reference else np.float16
    described = [method.engines.extract(image) for image in images]
    query, *keys = [Features(f.descriptor, tuple(m.astype(dtype) for m in f.maps)) for f in described]
    return Prepared(method, query, keys)


def difference(prepared: Prepared, reference: Prepared) -> Difference:
    """Compare pair scores and descriptors with the reference.

    Raises:
        BackendError: the difference exceeds the tolerance of the precision.
    """
    score = float(np.abs(prepared.scores() - reference.scores()).max())
    pairs = zip([prepared.query, *prepared.keys], [reference.query, *reference.keys], strict=True)
    descriptor = max(float(np.linalg.norm(ours.descriptor - theirs.descriptor)) for ours, theirs in pairs)
    tolerance = TOLERANCE[prepared.method.precision]
    most_score, most_descriptor = tolerance["score"] + MAP_ROUNDING, tolerance["descriptor"]
    if not (score <= most_score and descriptor <= most_descriptor):
        raise BackendError(
            f"a pair score differs from PyTorch by {score:.1e} and a descriptor by {descriptor:.1e}; expected at most "
            f"{most_score:.0e} and {most_descriptor:.0e}: not timed"
        )
    return Difference(score, descriptor)
