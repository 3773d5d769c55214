"""Exact global search: the images whose descriptors are most similar to a query's."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.contract import Array, Closing
from engine.geometry import DESCRIPTOR_DIM
from engine.retrieval.ranking import Ranking

# What rounding may do to a sum of 2048 products of two unit vectors, in whatever order it is taken (Higham, Accuracy
# and Stability of Numerical Algorithms, section 3.1); twice, because two such sums are compared.
SUM_ERROR = 2 * DESCRIPTOR_DIM * 2.0**-24
# A unit descriptor rounded to float16 moves its inner product with another by at most its own rounding error,
# 2^-11 of its norm, plus what values below float16's normal range lose (2^-25 each, 2048 of them).
HALF_ERROR = SUM_ERROR + 2.0**-11 + DESCRIPTOR_DIM**0.5 * 2.0**-25
HALF_FROM = 50_000  # descriptors; from here on half the memory and half the reading are worth the wider look
MARGIN = 64  # rows beyond the asked for that a scan returns at first


class DescriptorIndex(Closing):
    """Descriptors laid out for search, exact at any size.

    All are scanned, fast and roughly: by a matrix product, a large collection in float16. Whatever could be among the
    best, given the scan's error bound, is scored again, so the result is that of `similarities` over all rows.
    """

    def __init__(self, descriptors: Array, half_from: int = HALF_FROM) -> None:
        """
        Args:
            descriptors: (n, 2048) float32 unit rows; may be a memory map.
        """
        self._descriptors = descriptors
        self._half: Any = half_index(descriptors) if len(descriptors) >= half_from else None
        self._error = SUM_ERROR if self._half is None else HALF_ERROR

    def search(self, query: Array, k: int, among: Array | None = None) -> Ranking:
        """The `k` most similar rows to a query descriptor (2048,) float32, best first; equals by row number.

        Args:
            among: rows (n,) int64 to choose from, ascending; None for all.
        """
        rows = self._candidates(query, k) if among is None else among
        descriptors = self._descriptors if len(rows) == len(self._descriptors) else self._descriptors[rows]
        return Ranking.by_similarity(similarities(descriptors, query), rows).first(k)

    def close(self) -> None:
        """Let the descriptors go, and the float16 copy of a large collection."""
        del self._descriptors, self._half

    def _candidates(self, query: Array, k: int) -> Array:
        """Rows among which the exact `k` best are certain to be, in ascending order."""
        count = k + MARGIN
        while count < len(self._descriptors):
            rough, rows = self._scan(query, count)
            # anything not returned is below rough[-1] + error; the k-th best is above rough[k-1] - error
            if rough[-1] + self._error < rough[k - 1] - self._error:
                return np.sort(rows)
            count *= 4
        return np.arange(len(self._descriptors))

    def _scan(self, query: Array, count: int) -> tuple[Array, Array]:
        """The `count` highest rough similarities, descending, and their rows."""
        if self._half is not None:
            rough, rows = self._half.search(query[None], count)
            return rough[0], rows[0]
        products = self._descriptors @ query
        rows = np.argpartition(products, -count)[-count:]
        rows = rows[np.argsort(-products[rows])]
        return products[rows], rows


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
