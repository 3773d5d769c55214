"""Storage of feature maps in a gallery: float16, or compressed to a few bytes per position.

The compression is fitted to a gallery's first images, one per area scale, and its loss is measured on them.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.files import open_regular, write_atomically
from cvnet_engine.engine.gallery.map_compression import BYTE, MapCompression, fit
from cvnet_engine.engine.geometry import AREA_SCALES, MAP_DIM

CODED = "coded"  # the kinds `coded:N`, N bytes per position
CODED_BYTES = 24
KINDS = f"float16, {CODED} or {CODED}:BYTES"
MOST_BYTES = 128  # per position
CODE_FILE = "map-code.npz"
FIT_IMAGES = 32
FIT_POSITIONS = 30_000  # per scale
SCORED = 8  # images whose pairs are scored
LEAST_VARIANCE = 1e-12  # avoids division by zero
ORTHONORMAL = 1e-4  # tolerance on the inner products of a rotation's columns

Decode = Callable[[int, bytes, int, int], Array]  # as `MapCodec.decode`
Score = Callable[[Features, Sequence[Features]], Array]  # query, candidates -> pair scores (n,); see `Engines.score`


class MapCodec(Protocol):
    """A way to store feature maps; `scale` is 0, 1, 2 for area scales 0.25, 0.5, 1."""

    def encode(self, scale: int, feature_map: Array) -> bytes:
        """Encode a floating-point map (256, h, w)."""

    def decode(self, scale: int, data: bytes, height: int, width: int) -> Array:
        """Decode to a map (256, h, w) float16 or float32.

        Raises:
            ValueError: the number of bytes does not fit the size.
        """


class HalfCodec:
    """`float16`: the uncompressed values (256, h, w)."""

    def encode(self, _scale: int, feature_map: Array) -> bytes:
        return feature_map.astype(np.float16).tobytes()

    def decode(self, _scale: int, data: bytes, height: int, width: int) -> Array:
        return np.frombuffer(data, np.float16).reshape(MAP_DIM, height, width)


@dataclass(frozen=True)
class CompressedCodec:
    """`coded:N`: N bytes per position. `scales` has one compression per area scale, and is empty before fitting."""

    scales: tuple[MapCompression, ...] = ()

    @classmethod
    def fit(cls, sample: Sequence[Features], position_bytes: int) -> CompressedCodec:
        """Fit one compression per scale to the maps of sample images."""
        return cls(tuple(fit(vectors, position_bytes) for vectors in vectors_of(sample, FIT_POSITIONS)))

    @property
    def position_bytes(self) -> int:
        return max(compression.position_bytes for compression in self.scales)

    def explained_variance(self, vectors: Sequence[Array]) -> float:
        """Return the explained variance of vectors from `vectors_of`, the mean over scales.

        For a position of unit norm, it is the squared cosine between the vector and its decoded version.
        """
        shares = []
        for scale, of_scale in enumerate(vectors):
            data = self.encode(scale, of_scale.T[:, :, None])
            decoded = self.decode(scale, data, len(of_scale), 1).reshape(MAP_DIM, -1).T
            total = max(np.square(of_scale).sum(), LEAST_VARIANCE)
            shares.append(np.square(np.einsum("nd,nd->n", decoded, of_scale)).sum() / total)
        return float(np.mean(shares))

    def encode(self, scale: int, feature_map: Array) -> bytes:
        return self.scales[scale].encode(feature_map)

    def decode(self, scale: int, data: bytes, height: int, width: int) -> Array:
        return self._scale(scale).decode(data, height, width)

    def coordinates(self, scale: int, data: bytes, height: int, width: int) -> Array:
        """Decompress a map to PCA coordinates, see `MapCompression.coordinates`."""
        return self._scale(scale).coordinates(data, height, width)

    def rotate(self, coordinates: Sequence[Array]) -> tuple[Array, ...]:
        """Rotate the PCA coordinates of each scale, (d_s, h_s, w_s) float32, back to maps (256, h_s, w_s)."""
        return tuple(map(MapCompression.rotate, self.scales, coordinates))

    def _scale(self, scale: int) -> MapCompression:
        if not self.scales:
            raise ValueError("parameters of the map compression are missing")
        return self.scales[scale]

    def save(self, folder: Path) -> str:
        """Write the parameters into a gallery's folder; return the file's SHA-256."""
        arrays: dict[str, Array] = {}
        for scale, compression in enumerate(self.scales):
            arrays[f"rotation_{scale}"] = compression.rotation
            arrays[f"bits_{scale}"] = np.array(compression.bits, np.uint8)
            arrays[f"levels_{scale}"] = np.concatenate(compression.levels)
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **arrays)
        write_atomically(folder / CODE_FILE, stream.getvalue())
        return hashlib.sha256(stream.getvalue()).hexdigest()

    @classmethod
    def load(cls, folder: Path, digest: str) -> CompressedCodec:
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
            raise GalleryError(f"{file}: cannot be read ({error.strerror}); {remedy}") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise GalleryError(f"{file}: damaged, or of another gallery; {remedy}")
        try:
            with np.load(io.BytesIO(data)) as arrays:
                return cls(tuple(read_compression(arrays, scale) for scale in range(len(AREA_SCALES))))
        except (ValueError, KeyError, zipfile.BadZipFile) as error:
            raise GalleryError(f"{file}: invalid parameters of map compression ({error}); {remedy}") from error


def vectors_of(sample: Sequence[Features], most: int) -> list[Array]:
    """Return, for each scale, at most `most` random positions of the images' maps as vectors (n, 256) float32."""
    rng = np.random.default_rng(0)
    chosen = []
    for maps in zip(*(features.maps for features in sample), strict=True):
        vectors = np.concatenate([m.reshape(MAP_DIM, -1).T for m in maps])
        chosen.append(vectors[rng.permutation(len(vectors))[:most]].astype(np.float32))
    return chosen


def read_compression(arrays: Mapping[str, Array], scale: int) -> MapCompression:
    """Parse the parameters of one scale.

    Raises:
        ValueError: they are invalid.
    """
    rotation, bits, levels = (arrays[f"{name}_{scale}"] for name in ("rotation", "bits", "levels"))
    if [array.dtype.name for array in (rotation, bits, levels)] != ["float32", "uint8", "float32"]:
        raise ValueError("wrong types")
    counts = 1 << bits.astype(int).reshape(-1)
    if (rotation.shape, levels.shape) != ((MAP_DIM, bits.size), (counts.sum(),)):
        raise ValueError("wrong shapes")
    products = rotation.T @ rotation
    is_orthonormal = np.abs(products - np.eye(len(products))).max() < ORTHONORMAL
    if not (bits.min() >= 1 and bits.max() <= BYTE and np.isfinite(levels).all() and is_orthonormal):
        raise ValueError("wrong values")
    return MapCompression(rotation, tuple(np.split(levels, np.cumsum(counts)[:-1])))


# ------------------------------------------------------------------------------------------------------------ kinds


def parse_kind(text: str) -> str:
    """Return the canonical form of a kind of maps: `coded` becomes `coded:24`.

    Raises:
        ValueError: unknown kind.
    """
    if text == "float16":
        return text
    if text == CODED:
        return f"{CODED}:{CODED_BYTES}"
    size = re.fullmatch(rf"{CODED}:([1-9]\d*)", text, re.ASCII)
    if size and int(size[1]) <= MOST_BYTES:
        return text
    raise ValueError(f"maps {text!r}: expected {KINDS}, at most {MOST_BYTES} bytes per position")


def kind_wanted(text: str) -> str:
    """Parse a kind of maps given by the user.

    Raises:
        GalleryError: unknown kind.
    """
    try:
        return parse_kind(text)
    except ValueError as error:
        raise GalleryError(str(error)) from error


def is_compressed(kind: str) -> bool:
    """Return True for compressed maps, whose codec must be fitted to the gallery's first images."""
    return kind.startswith(CODED)


def fit_codec(kind: str, first: Sequence[Features]) -> CompressedCodec:
    """Fit the codec of a compressed kind to the first images of a gallery."""
    _, _, size = kind.partition(":")
    return CompressedCodec.fit(first[:FIT_IMAGES], int(size))


def open_codec(kind: str, folder: Path, digest: str) -> MapCodec:
    """Open the codec of a gallery's maps; raises as `CompressedCodec.load`."""
    if kind == "float16":
        return HalfCodec()
    return CompressedCodec.load(folder, digest) if digest else CompressedCodec()


# ------------------------------------------------------------------------------------------------------------- loss


@dataclass(frozen=True)
class ScoreChange:
    """Absolute change of pair scores when the database images' maps are compressed: mean and maximum over `pairs`."""

    pairs: int
    mean: float
    largest: float


@dataclass(frozen=True)
class Fidelity:
    """Loss by compressed maps, measured on the images that the compression was fitted to.

    Attributes:
        position_bytes: bytes per position.
        explained_variance: see `CompressedCodec.explained_variance`.
        scores: change of pair scores; None if there was no model to compute them.
    """

    position_bytes: int
    explained_variance: float
    scores: ScoreChange | None = None

    @classmethod
    def of(cls, codec: CompressedCodec, sample: Sequence[Features], score: Score | None) -> Fidelity:
        scores = score_change(score, codec, sample[:SCORED]) if score else None
        return cls(codec.position_bytes, codec.explained_variance(vectors_of(sample, FIT_POSITIONS)), scores)

    def __str__(self) -> str:
        size = f"{self.position_bytes} bytes per position, {self.explained_variance:.2%} explained variance"
        if self.scores is None:
            return size
        return (
            f"{size}; scores of {self.scores.pairs} pairs among the first images change by {self.scores.mean:.4f} on "
            f"average, {self.scores.largest:.4f} at most"
        )


def score_change(score: Score, codec: MapCodec, sample: Sequence[Features]) -> ScoreChange:
    """Measure the change of pair scores, with each image as the query against itself and the next image."""
    changes = []
    for number, query in enumerate(sample):
        for key in sample[number : number + 2]:
            before, after = (score(query, [features])[0] for features in (key, decoded(key, codec)))
            changes.append(abs(float(after - before)))
    return ScoreChange(len(changes), float(np.mean(changes)), max(changes))


def decoded(features: Features, codec: MapCodec) -> Features:
    """Return features after encoding and decoding their maps."""
    maps = (codec.decode(scale, codec.encode(scale, m), *m.shape[1:]) for scale, m in enumerate(features.maps))
    return replace(features, maps=tuple(maps))
