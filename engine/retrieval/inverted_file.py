"""An inverted file with product-quantised descriptors: FAISS's IVF-PQ, which proposes candidates for exact search.

    projection   PCA, then a random rotation that gives all dimensions a similar variance
    lists        a descriptor is in the list of its nearest k-means centroid
    codes        the residual to the centroid, 4 bits per dimension: one of 16 trained levels

Product quantisation with one dimension per subspace: Jégou, Douze, Schmid, Product Quantization for Nearest Neighbor
Search, PAMI 2011. FAISS's fast scan keeps the tables of 16 entries in registers: André, Kermarrec, Le Scouarnec, Cache
Locality Is Not Enough, VLDB 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.geometry import DESCRIPTOR_DIM

DIMENSIONS = (64, 128, 256)  # choices of PCA dimensions: the smallest that reaches `KEPT_VARIANCE`, otherwise 256
KEPT_VARIANCE = 0.95  # minimum explained variance
BITS = 4  # per dimension; FAISS's fast scan supports no other number
PCA_SAMPLE = 32_768  # maximum number of descriptors that PCA is fitted to
ITERATIONS = 8  # of k-means
DEPTH = 100  # recall is measured at this many results


@dataclass(frozen=True)
class Quantizer:
    """Trained parameters that map descriptors to lists and codes.

    Attributes:
        projection: (2048, d) float32, orthonormal columns.
        centroids: (lists, d) float32.
        levels: (d, 16) float32.
    """

    projection: Array
    centroids: Array
    levels: Array

    @classmethod
    def train(cls, sample: Array, lists: int) -> Quantizer:
        """Train on a sample of descriptors (m, 2048) float32."""
        import faiss

        projection = principal_directions(sample[:: -(-len(sample) // PCA_SAMPLE)])
        projected = sample @ projection  # (m, d)
        dimensions = projected.shape[1]
        clustering: Any = faiss.Kmeans(dimensions, lists, niter=ITERATIONS, seed=0)
        clustering.train(projected)
        nearest = clustering.assign(projected)[1]
        codes: Any = faiss.ProductQuantizer(dimensions, dimensions, BITS)
        codes.train(projected - clustering.centroids[nearest])
        levels = faiss.vector_to_array(codes.centroids).reshape(dimensions, 1 << BITS)
        return cls(projection, clustering.centroids, levels)

    @property
    def dimensions(self) -> int:
        return int(self.projection.shape[1])

    def product_quantizer(self) -> Any:
        """Return FAISS's product quantiser with these levels."""
        import faiss

        codes = faiss.ProductQuantizer(self.dimensions, self.dimensions, BITS)
        faiss.copy_array_to_vector(self.levels.reshape(-1), codes.centroids)
        return codes

    def encode(self, rows: Array) -> tuple[Array, Array]:
        """Return the lists (n,) int64 and codes (n, d / 2) uint8 of descriptors (n, 2048) float32."""
        import faiss

        projected = rows @ self.projection
        lists = faiss.knn(projected, self.centroids, 1)[1][:, 0]
        return lists, self.product_quantizer().compute_codes(projected - self.centroids[lists])


def principal_directions(sample: Array) -> Array:
    """Return the randomly rotated principal directions (2048, d) float32, orthonormal, of descriptors (m, 2048).

    The rotation spreads the variance, because every dimension has the same number of bits.
    """
    centred = sample - sample.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    variances, directions = variances[::-1].clip(0), directions[:, ::-1]
    kept = np.cumsum(variances) >= KEPT_VARIANCE * variances.sum()
    dimensions = next((d for d in DIMENSIONS if kept[d - 1]), DIMENSIONS[-1])
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((dimensions, dimensions)))
    return np.ascontiguousarray(directions[:, :dimensions] @ turn, np.float32)


@dataclass(frozen=True)
class InvertedFile:
    """The codes of n descriptors, sorted by list.

    Attributes:
        sizes: (lists,) int64, number of descriptors per list.
        members: (n,) uint32, descriptor numbers.
        codes: (n, d / 2) uint8.
    """

    quantizer: Quantizer
    sizes: Array
    members: Array
    codes: Array

    @classmethod
    def of(cls, quantizer: Quantizer, lists: Array, codes: Array) -> InvertedFile:
        """Build from the lists and codes that `encode` returns for descriptors 0 to n - 1."""
        order = np.argsort(lists, kind="stable")
        sizes = np.bincount(lists, minlength=len(quantizer.centroids))
        return cls(quantizer, sizes, order.astype(np.uint32), codes[order])

    def __len__(self) -> int:
        return len(self.members)

    def require_sound(self) -> None:
        """Raise ValueError unless dtypes, shapes and members are valid. FAISS does not check them."""
        quantizer, n = self.quantizer, len(self)
        dimensions = quantizer.dimensions
        shapes = {
            "projection": (quantizer.projection, np.float32, (DESCRIPTOR_DIM, dimensions)),
            "centroids": (quantizer.centroids, np.float32, (len(self.sizes), dimensions)),
            "levels": (quantizer.levels, np.float32, (dimensions, 1 << BITS)),
            "sizes": (self.sizes, np.int64, (len(quantizer.centroids),)),
            "members": (self.members, np.uint32, (n,)),
            "codes": (self.codes, np.uint8, (n, dimensions // 2)),
        }
        for name, (array, dtype, shape) in shapes.items():
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"its {name} are {array.dtype} {array.shape}; expected {np.dtype(dtype)} {shape}")
        if dimensions not in DIMENSIONS or (self.sizes < 0).any() or self.sizes.sum() != n or (self.members >= n).any():
            raise ValueError("its lists do not partition the descriptors")


class Scanner:
    """A FAISS index made from an inverted file."""

    def __init__(self, file: InvertedFile) -> None:
        import faiss

        quantizer = file.quantizer
        self._projection = quantizer.projection
        self.lists = len(quantizer.centroids)
        self._centroids = faiss.IndexFlatIP(quantizer.dimensions)  # kept: the index only points to it
        self._centroids.add(quantizer.centroids)
        shape = quantizer.dimensions, self.lists, quantizer.dimensions, BITS
        plain: Any = faiss.IndexIVFPQ(self._centroids, *shape, faiss.METRIC_INNER_PRODUCT)
        plain.pq, plain.by_residual, plain.is_trained = quantizer.product_quantizer(), True, True
        bounds = np.concatenate([[0], np.cumsum(file.sizes)])
        members, codes = file.members.astype(np.int64), np.ascontiguousarray(file.codes)
        for number, (first, last) in enumerate(pairwise(bounds.tolist())):
            if first < last:
                pointers = faiss.swig_ptr(members[first:last]), faiss.swig_ptr(codes[first:last])
                plain.invlists.add_entries(number, last - first, *pointers)
        plain.ntotal = len(file)
        self._index: Any = faiss.IndexIVFPQFastScan(plain)

    def nearest(self, query: Array, probes: int, count: int) -> Array:
        """Return up to `count` descriptor numbers (c,) int64, most similar to a query (2048,) float32 by code first.

        Args:
            probes: number of lists to scan (FAISS's `nprobe`).
        """
        import faiss

        projected = (query @ self._projection)[None]
        params: Any = faiss.SearchParametersIVF()
        params.nprobe = probes
        _, found = self._index.search(projected, count, params=params)
        return np.asarray(found[0][found[0] >= 0])


@dataclass(frozen=True)
class Effort:
    """Cost of an approximate search: lists to scan, and candidates to compare exactly."""

    probes: int
    candidates: int


@dataclass(frozen=True)
class Approximate:
    """An inverted file over a collection, which proposes candidates for exact search.

    Attributes:
        rows: (n,) int64, the row of each descriptor of the inverted file; -1 if it was removed from the collection.
        unknown: (m,) int64, ascending: rows added since the inverted file was built, all of which are candidates.
    """

    scanner: Scanner
    rows: Array
    unknown: Array
    effort: Effort

    def reaches(self, k: int) -> bool:
        """Return True if `k` is at most the depth at which recall was measured, plus 1 for a query in the gallery."""
        return k <= DEPTH + 1

    def propose(self, query: Array) -> Array:
        """Return the candidate rows (c,) int64, ascending, for a query (2048,) float32."""
        rows = self.rows[self.scanner.nearest(query, self.effort.probes, self.effort.candidates)]
        return np.sort(np.concatenate([rows[rows >= 0], self.unknown]))
