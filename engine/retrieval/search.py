"""Exact global search for the images whose descriptors are most similar to a query's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cvnet_engine.engine.contract import Array, Closing
from cvnet_engine.engine.geometry import DESCRIPTOR_DIM
from cvnet_engine.engine.retrieval.blocks import Descriptors
from cvnet_engine.engine.retrieval.ranking import Ranking

# Bound on the rounding error of an inner product of two unit vectors (2048 values) in any summation order (Higham,
# Accuracy and Stability of Numerical Algorithms, section 3.1). Doubled because two such sums are compared.
SUM_ERROR = 2 * DESCRIPTOR_DIM * 2.0**-24
# A unit descriptor rounded to float16 moves its inner product with another by at most its own rounding error,
# 2^-11 of its norm, plus what values below float16's normal range lose (2^-25 each, 2048 of them).
HALF_ERROR = SUM_ERROR + 2.0**-11 + DESCRIPTOR_DIM**0.5 * 2.0**-25
HALF_FROM = 50_000  # descriptors; from here on, half the memory traffic outweighs rescoring more rows
ROWS_AT_ONCE = 4096  # copied at a time to compute exact similarities: 32 MiB
MARGIN = 64  # rows beyond k that the first scan returns


class DescriptorIndex(Closing):
    """Index for exact search, like FAISS's flat index.

    A fast scan compares all descriptors by matrix product, in float16 for a large collection. All rows that could be
    among the best within the scan's error bound are then rescored, so the result equals `similarities` over all rows.
    """

    def __init__(self, descriptors: Array | Descriptors, half_from: int = HALF_FROM) -> None:
        """
        Args:
            descriptors: (n, 2048) float32, unit norm; may be memory maps.
        """
        self._descriptors = descriptors if isinstance(descriptors, Descriptors) else Descriptors.of_array(descriptors)
        blocks = self._descriptors.blocks
        self._in_half = len(descriptors) >= half_from
        self._scanned = [block.in_half() if self._in_half else block.rows for block in blocks]

    def search(self, query: Array, k: int, selection: Array | None = None) -> Ranking:
        """Return the `k` rows most similar to a query descriptor (2048,) float32, best first; ties by row number.

        Args:
            selection: rows (n,) int64 to search, ascending; None for all.

        Raises:
            GalleryError: the descriptor of a row that may be among the best is damaged.
        """
        rows = self._candidates(query, k, selection)
        found = [similarities(self._descriptors[rows[part]], query) for part in parts(len(rows))]
        if self._in_half:
            self._descriptors.release()  # without float16, the next scan reads these pages again
        return Ranking.by_similarity(np.concatenate([np.empty(0, np.float32), *found]), rows).first(k)

    def close(self) -> None:
        """Release the descriptors, and the float16 copy of a large collection."""
        del self._descriptors, self._scanned

    def _candidates(self, query: Array, k: int, selection: Array | None = None) -> Array:
        """Return rows, ascending, that are certain to include the exact `k` best."""
        rows = np.arange(len(self._descriptors)) if selection is None else selection
        scan, error = (scan_halves, HALF_ERROR) if self._in_half else (scan_products, SUM_ERROR)
        count = k + MARGIN
        while count < len(rows):
            scanned, indices = scan(self._blocks(selection), query, count)
            # every row not returned is below scanned[-1] + error; the k-th best is above scanned[k-1] - error
            if scanned[-1] + error < scanned[k - 1] - error:
                return np.sort(rows[indices])
            count *= 4
        return rows

    def _blocks(self, selection: Array | None) -> Iterator[Array]:
        """Yield the descriptors (n, 2048) to scan, in row order: all, or those of `selection`."""
        if selection is None:
            yield from self._scanned
        else:
            for number, _, within in self._descriptors.by_block(selection):
                yield self._scanned[number][within]


def similarities(descriptors: Array, query: Array) -> Array:
    """Return inner products (n,) float32 that are equal for equal rows.

    The last bits of a BLAS product would depend on a row's position.
    """
    products: Array = np.einsum("ij,j->i", descriptors, query)
    return products


def parts(n: int) -> Iterator[slice]:
    """Return slices that cover 0 to n - 1, `ROWS_AT_ONCE` rows each."""
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, n, ROWS_AT_ONCE))


def scan_products(blocks: Iterable[Array], query: Array, count: int) -> tuple[Array, Array]:
    """Return the `count` highest products with a query, descending, and their row numbers across all float32 blocks."""
    products = np.concatenate([block @ query for block in blocks])
    best = np.argpartition(products, -count)[-count:]
    best = best[np.argsort(-products[best])]
    return products[best], best


def scan_halves(blocks: Iterable[Array], query: Array, count: int) -> tuple[Array, Array]:
    """Return the same as `scan_products` for float16 blocks, scanned without a copy by FAISS's kernels."""
    import faiss

    quantizer: Any = faiss.ScalarQuantizer(DESCRIPTOR_DIM, faiss.ScalarQuantizer.QT_fp16)
    scanner = quantizer.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, None, True, None)
    query = np.ascontiguousarray(query, np.float32)
    scanner.set_query(faiss.swig_ptr(query))
    best, found = np.full(count, -np.inf, np.float32), np.full(count, -1, np.int64)  # a heap with the worst entry first
    heap = faiss.swig_ptr(best), faiss.swig_ptr(found)
    sizes = [0]
    for number, block in enumerate(blocks):
        scanner.set_list(number, 0)
        codes = np.ascontiguousarray(block).view(np.uint8).reshape(-1)
        scanner.scan_codes(len(block), faiss.swig_ptr(codes), None, *heap, count)
        sizes.append(len(block))
    best[found < 0] = np.nan  # FAISS skips NaN rows; NaN here makes _candidates scan more
    order = np.argsort(-best)
    starts = np.cumsum(sizes)
    return best[order], starts[found[order] >> 32] + (found[order] & 0xFFFFFFFF)  # FAISS packs (block, row) in 64 bits
