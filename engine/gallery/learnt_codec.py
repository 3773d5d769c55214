"""Codec of compressed maps: one compression per area scale, fitted to a gallery's first images."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.files import open_regular, write_atomically
from cvnet_engine.engine.gallery.map_code import BYTE, MapCode, learn
from cvnet_engine.engine.geometry import AREA_SCALES, MAP_DIM

CODE_FILE = "map-code.npz"
LEARN_FROM = 32  # images
LEARN_POSITIONS = 30_000  # sample positions per scale
MOST_BYTES = 128  # per position
LEAST_ENERGY = 1e-12  # avoids division by zero
ORTHONORMAL = 1e-4  # tolerance on the inner products of a rotation's columns


@dataclass(frozen=True)
class LearntCodec:
    """`coded:N`: N bytes per position. `codes` has one compression per area scale, and is empty before fitting."""

    codes: tuple[MapCode, ...] = ()

    @classmethod
    def learn(cls, sample: Sequence[Features], position_bytes: int) -> LearntCodec:
        """Fit one compression per scale to the maps of sample images."""
        return cls(tuple(learn(vectors, position_bytes) for vectors in vectors_of(sample, LEARN_POSITIONS)))

    @property
    def position_bytes(self) -> int:
        return max(code.position_bytes for code in self.codes)

    def energy(self, vectors: Sequence[Array]) -> float:
        """Return the explained variance of vectors from `vectors_of`, the mean over scales.

        For a position of unit norm, it is the squared cosine between the vector and its decoded version.
        """
        shares = []
        for scale, of_scale in enumerate(vectors):
            data = self.encode(scale, of_scale.T[:, :, None])
            decoded = self.decode(scale, data, len(of_scale), 1).reshape(MAP_DIM, -1).T
            total = max(np.square(of_scale).sum(), LEAST_ENERGY)
            shares.append(np.square(np.einsum("nd,nd->n", decoded, of_scale)).sum() / total)
        return float(np.mean(shares))

    def encode(self, scale: int, unit_map: Array) -> bytes:
        return self.codes[scale].encode(unit_map)

    def decode(self, scale: int, data: bytes, height: int, width: int) -> Array:
        return self._code(scale).decode(data, height, width)

    def coordinates(self, scale: int, data: bytes, height: int, width: int) -> Array:
        """Decompress a map to PCA coordinates, see `MapCode.coordinates`."""
        return self._code(scale).coordinates(data, height, width)

    def rotate(self, coordinates: Sequence[Array]) -> tuple[Array, ...]:
        """Rotate the PCA coordinates of each scale, (d_s, h_s, w_s) float32, back to maps (256, h_s, w_s)."""
        return tuple(code.rotate(of_scale) for code, of_scale in zip(self.codes, coordinates, strict=True))

    def _code(self, scale: int) -> MapCode:
        if not self.codes:
            raise ValueError("the code that it is kept in is missing")
        return self.codes[scale]

    def save(self, folder: Path) -> str:
        """Write the parameters into a gallery's folder; return the file's SHA-256."""
        arrays: dict[str, Array] = {}
        for scale, code in enumerate(self.codes):
            arrays[f"rotation_{scale}"] = code.rotation
            arrays[f"bits_{scale}"] = np.array([len(levels).bit_length() - 1 for levels in code.levels], np.uint8)
            arrays[f"levels_{scale}"] = np.concatenate(code.levels)
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **arrays)
        write_atomically(folder / CODE_FILE, stream.getvalue())
        return hashlib.sha256(stream.getvalue()).hexdigest()

    @classmethod
    def load(cls, folder: Path, digest: str) -> LearntCodec:
        """Read the parameters from a gallery's folder.

        Raises:
            GalleryError: the file is missing, damaged, or its SHA-256 is not `digest`.
        """
        file = folder / CODE_FILE
        remedy = "copy it back from a backup, or index the images into a new gallery"
        try:
            with open_regular(file) as stream:
                data = stream.read()
        except OSError as error:
            raise GalleryError(f"{file}: not readable ({error.strerror}), and no map without it; {remedy}") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise GalleryError(f"{file}: not the code that the gallery's maps are kept in; {remedy}")
        try:
            with np.load(io.BytesIO(data)) as arrays:
                return cls(tuple(read_code(arrays, scale) for scale in range(len(AREA_SCALES))))
        except (ValueError, KeyError, zipfile.BadZipFile) as error:
            raise GalleryError(f"{file}: no code of maps ({error}); {remedy}") from error


def vectors_of(sample: Sequence[Features], most: int) -> list[Array]:
    """Return, for each scale, at most `most` random positions of the images' maps as vectors (n, 256) float32."""
    rng = np.random.default_rng(0)
    chosen = []
    for maps in zip(*(features.maps for features in sample), strict=True):
        vectors = np.concatenate([m.reshape(MAP_DIM, -1).T for m in maps])
        chosen.append(vectors[rng.permutation(len(vectors))[:most]].astype(np.float32))
    return chosen


def read_code(arrays: Mapping[str, Array], scale: int) -> MapCode:
    """Parse the parameters of one scale.

    Raises:
        ValueError: they are invalid.
    """
    rotation, bits, levels = (arrays[f"{name}_{scale}"] for name in ("rotation", "bits", "levels"))
    if [array.dtype.name for array in (rotation, bits, levels)] != ["float32", "uint8", "float32"]:
        raise ValueError("its arrays are of other types")
    counts = 1 << bits.astype(int).reshape(-1)
    if (rotation.shape, levels.shape) != ((MAP_DIM, bits.size), (counts.sum(),)):
        raise ValueError("its arrays do not fit each other")
    if not (bits.min() >= 1 and bits.max() <= BYTE and np.isfinite(levels).all() and is_orthonormal(rotation)):
        raise ValueError("its values are none of a code")
    return MapCode(rotation, tuple(np.split(levels, np.cumsum(counts)[:-1])))


def is_orthonormal(columns: Array) -> bool:
    return bool(np.abs(columns.T @ columns - np.eye(columns.shape[1])).max() < ORTHONORMAL)
