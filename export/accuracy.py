"""Accuracy loss of reduced precision, from image to pair score, measured on the user's photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvnet_engine.engine.contract import Array, Engine
from cvnet_engine.engine.errors import ExportError
from cvnet_engine.export.parity import Case

NEAREST = 10
MAX_SCORE_DRIFT = {"fp32": 0.01, "bf16": 0.01, "fp16": 0.01, "int8": 0.1}  # in pair score, by precision


@dataclass(frozen=True)
class Accuracy:
    """Engines compared with PyTorch, each computing pair scores from its own features.

    Attributes:
        images: number of photos; each is scored against the next one.
        descriptor_cosine: smallest cosine similarity between the engine's and PyTorch's descriptor of a photo.
        score_drift: largest absolute difference between the engine's and PyTorch's pair score.
        nearest_kept: mean fraction of a photo's `NEAREST` nearest neighbours by similarity that PyTorch returns too.
    """

    images: int
    descriptor_cosine: float
    score_drift: float
    nearest_kept: float


def measure(features: Engine, reranker: Engine, cases: dict[str, list[Case]], precision: str) -> Accuracy:
    """Measure the accuracy of two engines on the `parity.cases` of single photos.

    Raises:
        ExportError: a pair score differs from PyTorch's by more than `MAX_SCORE_DRIFT`.
    """
    outputs = [features.run(case.feeds) for case in cases["features"]]
    got = np.concatenate([output["descriptor"] for output in outputs])  # (n, 2048)
    want = np.concatenate([case.want["descriptor"] for case in cases["features"]])
    scores = [score(reranker, q, k) for q, k in zip(outputs, outputs[1:] + outputs[:1], strict=True)]
    drift = float(np.abs(np.array(scores) - [case.want["score"][0] for case in cases["reranker"]]).max())
    most = MAX_SCORE_DRIFT[precision]
    if not drift <= most:  # also for NaN
        raise ExportError(
            f"pair scores differ from PyTorch's by up to {drift:.1e}; expected at most {most} in {precision}"
        )
    cosine = float((got * want).sum(axis=1).min())
    return Accuracy(len(got), cosine, drift, nearest_kept(got, want))


def score(reranker: Engine, query: dict[str, Array], key: dict[str, Array]) -> float:
    """Return the pair score of two images' features."""
    feeds = {f"{side}_{s}": maps[f"map_{s}"] for side, maps in (("query", query), ("key", key)) for s in range(3)}
    return float(reranker.run(feeds)["score"][0])


def nearest_kept(got: Array, want: Array) -> float:
    """Return the mean overlap of each row's nearest neighbours under two sets of descriptors (n, 2048)."""
    k = min(NEAREST, len(got) - 1)
    if k < 1:
        return 1.0
    pairs = zip(nearest(got, k), nearest(want, k), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in pairs]))


def nearest(descriptors: Array, k: int) -> Array:
    """Return the k rows most similar to each row, excluding the row itself: (n, k)."""
    similarities = descriptors @ descriptors.T
    np.fill_diagonal(similarities, -np.inf)
    return np.argsort(-similarities, axis=1, kind="stable")[:, :k]
