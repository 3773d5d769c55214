"""The cost of reduced precision, from image to pair score, measured on the user's own photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvnet_engine.engine.contract import Array, Engine
from cvnet_engine.engine.errors import ExportError
from cvnet_engine.export.parity import Case

NEAREST = 10
MAX_SCORE_DRIFT = {"fp32": 0.01, "bf16": 0.01, "fp16": 0.01, "int8": 0.1}  # by precision


@dataclass(frozen=True)
class Accuracy:
    """Engines beside PyTorch, each with its own features.

    Attributes:
        images: how many photos were described; each is compared with the next one.
        descriptor_cosine: the smallest of a descriptor with PyTorch's.
        score_drift: the largest difference of a pair score.
        nearest_kept: the share of each photo's `NEAREST` others, by global similarity, that are PyTorch's too.
    """

    images: int
    descriptor_cosine: float
    score_drift: float
    nearest_kept: float


def measure(features: Engine, reranker: Engine, cases: dict[str, list[Case]], precision: str) -> Accuracy:
    """The accuracy of two engines of a precision on the `parity.cases` of single photos.

    Raises:
        ExportError: a score drifts beyond `MAX_SCORE_DRIFT`.
    """
    outputs = [features.run(case.feeds) for case in cases["features"]]
    got = np.concatenate([output["descriptor"] for output in outputs])  # (n, 2048)
    want = np.concatenate([case.want["descriptor"] for case in cases["features"]])
    scores = [score(reranker, q, k) for q, k in zip(outputs, outputs[1:] + outputs[:1], strict=True)]
    drift = float(np.abs(np.array(scores) - [case.want["score"][0] for case in cases["reranker"]]).max())
    most = MAX_SCORE_DRIFT[precision]
    if not drift <= most:  # also for NaN
        raise ExportError(f"scores drift by {drift:.1e} from image to score; expected {most} at most in {precision}")
    cosine = float((got * want).sum(axis=1).min())
    return Accuracy(len(got), cosine, drift, nearest_kept(got, want))


def score(reranker: Engine, query: dict[str, Array], key: dict[str, Array]) -> float:
    """The pair score of two images' feature outputs."""
    feeds = {f"{side}_{s}": maps[f"map_{s}"] for side, maps in (("query", query), ("key", key)) for s in range(3)}
    return float(reranker.run(feeds)["score"][0])


def nearest_kept(got: Array, want: Array) -> float:
    """Mean overlap of each row's nearest others under two sets of descriptors (n, 2048)."""
    k = min(NEAREST, len(got) - 1)
    if k < 1:
        return 1.0
    pairs = zip(nearest(got, k), nearest(want, k), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in pairs]))


def nearest(descriptors: Array, k: int) -> Array:
    """(n, k) rows most similar to each row, itself left out."""
    similarities = descriptors @ descriptors.T
    np.fill_diagonal(similarities, -np.inf)
    return np.argsort(-similarities, axis=1, kind="stable")[:, :k]
