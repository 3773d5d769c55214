"""SuperGlobal's multi-scale descriptor and its reranking by descriptors alone (Shao et al., ICCV 2023, section 3.3).

Each shortlist image's descriptor becomes a weighted mean of itself and of its nearest neighbours' in the shortlist.
The query is expanded to the element-wise maximum of the refined descriptors closest to it. With the weights of all
means in a matrix W (M, M) and the shortlist's descriptors T (M, D), the refined descriptors are W T. They are not
computed: their similarities to a query q are W (T q). Only the few that expand the query are computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.geometry import Size
from cvnet_engine.engine.images import normalise
from cvnet_engine.engine.retrieval.blocks import Descriptors
from cvnet_engine.engine.retrieval.ranking import Ranking

MIN_SIDE_PX = 92  # 65 px at the smallest scale: three positions of stage 4, the minimum for mirror padding


@dataclass(frozen=True)
class Refinement:
    """Settings of the refinement of a shortlist. The defaults are the published values.

    Attributes:
        shortlist: M, number of images of the global ranking to rerank.
        neighbours: K, number of other images to average each image with.
        weight: beta. A neighbour's weight is beta times its similarity; an image's own weight is 1.
    """

    shortlist: int = 400
    neighbours: int = 9
    weight: float = 0.15


def network_input(image: Array, scale: float) -> Array:
    """Normalise, then scale a BGR image (H, W, 3) uint8: (1, 3, int(H·scale), int(W·scale)) float32."""
    return resized(normalise(image), scaled(image.shape[:2], scale))


def scaled(image_px: Size, scale: float) -> Size:
    """Return an image's (height, width) px at a scale, rounded down."""
    return int(image_px[0] * scale), int(image_px[1] * scale)


def resized(normalised: Array, size: Size) -> Array:
    """Resize (1, 3, H, W) float32 to (1, 3, *size), bilinear without antialiasing; values are not rounded."""
    if normalised.shape[2:] == size:
        return normalised
    height, width = size
    image = np.ascontiguousarray(normalised[0].transpose(1, 2, 0))  # (H, W, 3)
    smaller = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(smaller.transpose(2, 0, 1)[None])


def over_scales(descriptors: Array) -> Array:
    """Combine the unit descriptors (S, D) of an image's scales into one (D,): element-wise maximum, unit norm."""
    largest = descriptors.max(axis=0)
    return np.asarray(largest / np.linalg.norm(largest), np.float32)


def rerank(query: Array, ranking: Ranking, descriptors: Array | Descriptors, how: Refinement) -> Ranking:
    """Rerank the first `how.shortlist` images; the others keep their order.

    Args:
        query: (D,) float32, unit norm.
        ranking: ranking by global similarity.
        descriptors: (n, D) float32, unit norm, of the whole collection.
    """
    return ranking.refined_by(refined_scores(query, descriptors[ranking.rows[: how.shortlist]], how))


def refined_scores(query: Array, shortlist: Array, how: Refinement) -> Array:
    """Return the refined similarities (M,) float32 of a query (D,) and a shortlist's descriptors (M, D), best first."""
    weights = mean_weights(shortlist @ shortlist.T, how)  # (M, M)
    to_query = weights @ (shortlist @ query)  # similarities of the refined descriptors
    closest = np.argsort(-to_query, kind="stable")[: how.neighbours + 1]
    expanded = (weights[closest] @ shortlist).max(axis=0)  # (D,)
    return np.asarray((to_query + weights @ (shortlist @ expanded)) / 2, np.float32)


def mean_weights(similarities: Array, how: Refinement) -> Array:
    """Return the weights (M, M) float32 of the refining means: each row sums to 1 and has K + 1 non-zero weights.

    The most similar image of a row, normally the image itself, has weight 1 before the row is normalised.
    """
    count = min(how.neighbours + 1, len(similarities))
    nearest = np.argpartition(-similarities, count - 1, axis=1)[:, :count]  # (M, K + 1), unsorted
    found = np.take_along_axis(similarities, nearest, axis=1)
    weight = how.weight * found
    weight[np.arange(len(found)), found.argmax(axis=1)] = 1
    weights = np.zeros_like(similarities)
    np.put_along_axis(weights, nearest, weight / weight.sum(axis=1, keepdims=True), axis=1)
    return weights
