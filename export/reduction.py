"""Fewer dimensions of maps to correlate, where the others carry nothing: which, and what that does to scores (030).

The correlation of two maps is a product over their channels, the same in any orthonormal basis. The basis is that of
the principal components of positions about the origin, one for the maps of all three area scales, as each of a query's
is correlated with each of a key's. Only its leading dimensions are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvnet_engine.engine.backends import open_engine
from cvnet_engine.engine.backends.native.weights import BASIS
from cvnet_engine.engine.bundle import MapBasis
from cvnet_engine.engine.contract import Array, Engine
from cvnet_engine.engine.errors import ExportError
from cvnet_engine.engine.geometry import AREA_SCALES, MAP_DIM, REDUCED_DIMS
from cvnet_engine.export.accuracy import score

PAYING_DIMS = tuple(dims for dims in REDUCED_DIMS if 2 * dims <= MAP_DIM)  # more save about what reducing maps takes
MEAN_DRIFT = 0.002  # of pair scores, the largest that is allowed by default
MOST_OVER_MEAN = 5  # the largest single drift allowed, over the largest mean
NEIGHBOURS = (1, 2)  # each photo is compared with the photos so far behind it

Described = dict[str, Array]  # outputs of the `features` graph for one photo


@dataclass(frozen=True)
class Reduction:
    """What to reduce maps to.

    Attributes:
        photos: finds a folder of photos like those to come, or makes it.
        dims: numbers of dimensions to try, ascending.
        mean_drift: the largest mean difference of pair scores that is allowed; a single one may be `MOST_OVER_MEAN`
            times as large.
    """

    photos: Callable[[], Path]
    dims: Sequence[int] = PAYING_DIMS
    mean_drift: float = MEAN_DRIFT


@dataclass(frozen=True)
class Basis:
    """Principal components of maps.

    Attributes:
        axes: (256, 256) float32, orthonormal columns, the one that holds most first.
        energy: (256,) what share of the maps' energy the leading dimensions hold, by their number less one.
    """

    axes: Array
    energy: Array

    def leading(self, dims: int) -> Array:
        """(256, dims) float32."""
        return np.ascontiguousarray(self.axes[:, :dims])


def learn(described: Sequence[Described]) -> Basis:
    """The basis of photos' maps, in which each area scale counts alike."""
    moment = np.zeros((MAP_DIM, MAP_DIM))
    for scale in range(len(AREA_SCALES)):
        maps = [outputs[f"map_{scale}"].reshape(MAP_DIM, -1) for outputs in described]
        moment += sum(m @ m.T for m in maps) / sum(m.shape[1] for m in maps)
    energies, axes = np.linalg.eigh(moment)  # ascending
    return Basis(axes[:, ::-1].astype(np.float32), np.cumsum(energies[::-1]) / energies.sum())


def reduce(
    weights: Path,
    precision: str,
    described: Sequence[Described],
    reduction: Reduction,
    step: Callable[[str], None] = lambda _: None,
) -> MapBasis:
    """Put a basis into the native pair scorer's weights: of the fewest dimensions that leave scores as they are.

    Args:
        precision: of the native engine's arithmetic.
        described: photos' maps; scores are compared on pairs of neighbours.

    Raises:
        ExportError: scores drift too far with any of the dimensions.
        BackendError: see `NativeReranker`.
    """
    basis, want = learn(described), pair_scores(weights, precision, described)
    for dims in reduction.dims:
        step(f"scoring pairs in {dims} of {MAP_DIM} dimensions")
        reduced = weights.with_stem(f"{weights.stem}.{dims}")
        write_reduced(weights, basis.leading(dims), reduced)
        drift = np.abs(pair_scores(reduced, precision, described) - want)
        mean, largest = float(drift.mean()), float(drift.max())
        if mean <= reduction.mean_drift and largest <= MOST_OVER_MEAN * reduction.mean_drift:
            reduced.replace(weights)
            digest = hashlib.sha256(basis.leading(dims).tobytes()).hexdigest()
            return MapBasis(dims, digest, float(basis.energy[dims - 1]), mean, largest, len(want))
    raise ExportError(
        f"pair scores in {dims} dimensions drift by {mean:.1e} in the mean and {largest:.1e} at most; expected "
        f"{reduction.mean_drift:.1e} and {MOST_OVER_MEAN * reduction.mean_drift:.1e}"
    )


def write_reduced(weights: Path, basis: Array, file: Path) -> None:
    """Weights of the native pair scorer with a basis (256, d) beside them, as another file."""
    with np.load(weights) as tensors:
        np.savez(file, allow_pickle=False, **dict(tensors) | {BASIS: basis})


def pair_scores(weights: Path, precision: str, described: Sequence[Described]) -> Array:
    """The scores of neighbours, (pairs,) float64."""
    with open_engine(weights, "native", precision) as reranker:
        return np.array([score(reranker, query, key) for query, key in pairs(described)])


def pairs(described: Sequence[Described]) -> list[tuple[Described, Described]]:
    """Each photo with those behind it."""
    return [
        (query, key) for n in NEIGHBOURS for query, key in zip(described, [*described[n:], *described[:n]], strict=True)
    ]


def described_by(features: Engine, photos: Sequence[Array]) -> list[Described]:
    """Features of normalised images (1, 3, H, W) float32."""
    return [features.run({"image": photo}) for photo in photos]
