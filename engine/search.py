"""Exact global search: the images whose descriptors are most similar to a query's."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.ranking import Ranking
from engine.session import Array

# A unit descriptor rounded to float16 moves its inner product with another by at most its own rounding error,
# 2^-11 of its norm, plus what values below float16's normal range lose (2^-25 each, 2048 of them).
HALF_ERROR = 2.0**-11 + 2048**0.5 * 2.0**-25
HALF_FROM = 50_000  # descriptors; from here on half the memory and half the reading are worth the second look


class DescriptorIndex:
    """Descriptors laid out for search, exact at any size.

    A large collection is kept in float16 and scanned; whatever could be among the best, given float16's error
    bound, is scored again from the float32 rows, so the result is that of the full-precision scan.
    """

    def __init__(self, descriptors: Array, half_from: int = HALF_FROM) -> None:
        """
        Args:
            descriptors: (n, 2048) float32 unit rows; may be a memory map, of which little is read per query.
        """
        self._descriptors = descriptors
        self._half: Any = half_index(descriptors) if len(descriptors) >= half_from else None

    def search(self, query: Array, k: int) -> Ranking:
        """The `k` most similar rows to a query descriptor (2048,) float32, best first; equals by row number."""
        k = min(k, len(self._descriptors))
        rows = np.arange(len(self._descriptors)) if self._half is None else self._candidates(query, k)
        return Ranking.by_similarity(similarities(self._descriptors[rows], query), rows).first(k)

    def _candidates(self, query: Array, k: int) -> Array:
        """Rows among which the exact `k` best are certain to be, in ascending order."""
        count, n = k + 64, len(self._descriptors)
        while True:
            count = min(count, n)
            approximate, rows = (a[0] for a in self._half.search(query[None], count))
            # anything not returned is below approximate[-1] + error; the k-th best is above approximate[k-1] - error
            if count == n or approximate[-1] + HALF_ERROR < approximate[k - 1] - HALF_ERROR:
                return np.sort(rows)
            count *= 4


def similarities(descriptors: Array, query: Array) -> Array:
    """(n,) float32 inner products, equal for equal rows: a BLAS product's last bits depend on where a row stands."""
    products: Array = np.einsum("ij,j->i", descriptors, query)
    return products


def half_index(descriptors: Array) -> Any:
    """The rows in float16, as faiss scans them."""
    import faiss

    index = faiss.IndexScalarQuantizer(descriptors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for start in range(0, len(descriptors), 65536):
        index.add(descriptors[start : start + 65536])
    return index
