"""Storage of feature maps in a gallery: float16, or compressed to a few bytes per position."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.learnt_codec import LEARN_FROM, MOST_BYTES, LearntCodec
from cvnet_engine.engine.geometry import MAP_DIM

CODED = "coded"  # the kinds `coded:N`, N bytes per position
CODED_BYTES = 24
KINDS = f"float16, {CODED} or {CODED}:BYTES"


class MapCodec(Protocol):
    """A way to store feature maps; `scale` is 0, 1, 2 for area scales 0.25, 0.5, 1."""

    def encode(self, scale: int, unit_map: Array) -> bytes:
        """Encode a floating-point map (256, h, w)."""

    def decode(self, scale: int, data: bytes, height: int, width: int) -> Array:
        """Decode to a map (256, h, w) float16 or float32.

        Raises:
            ValueError: the number of bytes does not fit the size.
        """


class HalfCodec:
    """`float16`: the uncompressed values (256, h, w)."""

    def encode(self, _scale: int, unit_map: Array) -> bytes:
        return unit_map.astype(np.float16).tobytes()

    def decode(self, _scale: int, data: bytes, height: int, width: int) -> Array:
        return np.frombuffer(data, np.float16).reshape(MAP_DIM, height, width)


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


def is_learnt(kind: str) -> bool:
    """Return True for compressed maps, whose codec must be fitted to the gallery's first images."""
    return kind.startswith(CODED)


def learn_codec(kind: str, first: Sequence[Features]) -> LearntCodec:
    """Fit the codec of a compressed kind to the first images of a gallery."""
    _, _, size = kind.partition(":")
    return LearntCodec.learn(first[:LEARN_FROM], int(size))


def open_codec(kind: str, folder: Path, digest: str) -> MapCodec:
    """Open the codec of a gallery's maps; raises as `LearntCodec.load`."""
    if kind == "float16":
        return HalfCodec()
    return LearntCodec.load(folder, digest) if digest else LearntCodec()
