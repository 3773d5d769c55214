"""SuperGlobal's descriptor over scales, and its reranking by descriptors alone (Shao et al., ICCV 2023, section 3.3).

A shortlist is refined within itself: each image's descriptor becomes a weighted mean of its own and of those of its
nearest neighbours on the shortlist, and the query is expanded to the maximum of the descriptors refined closest to it.
With the weights of all means as one matrix W (M, M) and the shortlist's descriptors T (M, D), the refined descriptors
are W T. They are never made: a product with them is W (T q), and only the few that expand the query are needed whole.
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

MIN_SIDE_PX = 92  # 65 at the smallest scale, three positions of stage 4: the fewest that can be mirrored at their edges


@dataclass(frozen=True)
class Refinement:
    """How a shortlist is refined; the published values.

    Attributes:
        shortlist: M, how many images of the global ranking are reranked.
        neighbours: K, how many others each image is averaged with.
        weight: beta, of a neighbour's similarity; an image's own weight is 1.
    """

    shortlist: int = 400
    neighbours: int = 9
    weight: float = 0.15


def network_input(image: Array, scale: float) -> Array:
    """A BGR image (H, W, 3) uint8 normalised, then scaled: (1, 3, int(H·scale), int(W·scale)) float32."""
    return resized(normalise(image), scaled(image.shape[:2], scale))


def scaled(image_px: Size, scale: float) -> Size:
    """An image's size at a scale, cut to whole pixels."""
    return int(image_px[0] * scale), int(image_px[1] * scale)


def resized(normalised: Array, size: Size) -> Array:
    """(1, 3, H, W) float32 -> (1, 3, *size), bilinear and not antialiased; the values are not rounded."""
    if normalised.shape[2:] == size:
        return normalised
    height, width = size
    image = np.ascontiguousarray(normalised[0].transpose(1, 2, 0))  # (H, W, 3)
    smaller = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(smaller.transpose(2, 0, 1)[None])


def over_scales(descriptors: Array) -> Array:
    """Unit descriptors (S, D) of an image's scales to the image's, (D,): their maximum, of unit norm again."""
    largest = descriptors.max(axis=0)
    return np.asarray(largest / np.linalg.norm(largest), np.float32)


def rerank(query: Array, ranking: Ranking, descriptors: Array | Descriptors, how: Refinement) -> Ranking:
    """The ranking with its first `how.shortlist` images ordered anew, the others behind them as they were.

    Args:
        query: (D,) float32, unit norm.
        ranking: by global similarity.
        descriptors: (n, D) float32 unit rows of the whole collection.
    """
    return ranking.refined_by(refined_scores(query, descriptors[ranking.rows[: how.shortlist]], how))


def refined_scores(query: Array, shortlist: Array, how: Refinement) -> Array:
    """(M,) float32: what the shortlist is ordered by, from the query (D,) and its descriptors (M, D), best first."""
    weights = mean_weights(shortlist @ shortlist.T, how)  # (M, M)
    to_query = weights @ (shortlist @ query)  # similarities of the refined descriptors
    closest = np.argsort(-to_query, kind="stable")[: how.neighbours + 1]
    expanded = (weights[closest] @ shortlist).max(axis=0)  # (D,)
    return np.asarray((to_query + weights @ (shortlist @ expanded)) / 2, np.float32)


def mean_weights(similarities: Array, how: Refinement) -> Array:
    """Weights (M, M) float32 of the mean that refines each image: rows sum to 1, all but K + 1 of each are 0.

    The most similar image of a row, normally itself, weighs 1 before the division.
    """
    count = min(how.neighbours + 1, len(similarities))
    nearest = np.argpartition(-similarities, count - 1, axis=1)[:, :count]  # (M, K + 1), in no order
    found = np.take_along_axis(similarities, nearest, axis=1)
    weight = how.weight * found
    weight[np.arange(len(found)), found.argmax(axis=1)] = 1
    weights = np.zeros_like(similarities)
    np.put_along_axis(weights, nearest, weight / weight.sum(axis=1, keepdims=True), axis=1)
    return weights
