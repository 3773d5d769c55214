"""The codes of a gallery's maps, one for each area scale, learnt from its first images and kept beside its shards."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.contract import Array
from engine.errors import GalleryError
from engine.features import Features
from engine.files import open_regular, write_atomically
from engine.gallery.map_code import MapCode, learn
from engine.geometry import AREA_SCALES, MAP_DIM

CODE_FILE = "map-code.npz"
LEARN_FROM = 32  # images
LEARN_POSITIONS = 30_000  # of their maps, of each scale


@dataclass(frozen=True)
class LearntCodec:
    """`coded:N`: N bytes a position, by a code for each scale; none of them while they are still to be learnt."""

    codes: tuple[MapCode, ...] = ()

    @classmethod
    def learn(cls, sample: Sequence[Features], position_bytes: int) -> LearntCodec:
        """The codes of images like those of the sample."""
        rng = np.random.default_rng(0)
        codes = []
        for scale in range(len(AREA_SCALES)):
            vectors = np.concatenate([features.maps[scale].reshape(MAP_DIM, -1).T for features in sample])
            chosen = rng.permutation(len(vectors))[:LEARN_POSITIONS]
            codes.append(learn(vectors[chosen].astype(np.float32), position_bytes))
        return cls(tuple(codes))

    def encode(self, scale: int, unit_map: Array) -> bytes:
        return self.codes[scale].encode(unit_map)

    def decode(self, scale: int, data: bytes, height: int, width: int) -> Array:
        if not self.codes:
            raise ValueError("the code that it is kept in is missing")
        return self.codes[scale].decode(data, height, width)

    def reduced(self, basis: Array) -> LearntCodec:
        """The codes that decode to coordinates (D, h, w) in a basis (256, D)."""
        return LearntCodec(tuple(code.reduced(basis) for code in self.codes))

    def save(self, folder: Path) -> str:
        """Write it beside a gallery's shards; the file's SHA-256."""
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
        """
        Raises:
            GalleryError: the file is missing, or not the one of this SHA-256.
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


def read_code(arrays: Mapping[str, Array], scale: int) -> MapCode:
    counts = 1 << arrays[f"bits_{scale}"].astype(int)
    levels = np.split(arrays[f"levels_{scale}"], np.cumsum(counts)[:-1])
    return MapCode(arrays[f"rotation_{scale}"], tuple(levels))
