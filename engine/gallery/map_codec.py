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
    """One way to keep maps; `scale` is 0, 1, 2 for area scales 0.25, 0.5, 1."""

    def encode(self, scale: int, unit_map: Array) -> bytes:
        """A map (256, h, w) floating as bytes."""

    def decode(self, scale: int, data: bytes, height: int, width: int) -> Array:
        """The map (256, h, w) float16 or float32 of `encode`d bytes.

        Raises:
            ValueError: there are more or fewer of them.
        """


class HalfCodec:
    """`float16`: the values (256, h, w) themselves."""

    def encode(self, _scale: int, unit_map: Array) -> bytes:
        return unit_map.astype(np.float16).tobytes()

    def decode(self, _scale: int, data: bytes, height: int, width: int) -> Array:
        return np.frombuffer(data, np.float16).reshape(MAP_DIM, height, width)


def parse_kind(text: str) -> str:
    """The kind of maps as a gallery notes it, `coded` being `coded:24`.

    Raises:
        ValueError: there is no such kind.
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
    """The kind that a user names.

    Raises:
        GalleryError: there is no such kind.
    """
    try:
        return parse_kind(text)
    except ValueError as error:
        raise GalleryError(str(error)) from error


def is_learnt(kind: str) -> bool:
    """Whether maps of a kind are kept by a code that is learnt from the gallery's first images."""
    return kind.startswith(CODED)


def learn_codec(kind: str, first: Sequence[Features]) -> LearntCodec:
    """The codec of a compressed kind, fitted to the first images of a gallery."""
    _, _, size = kind.partition(":")
    return LearntCodec.learn(first[:LEARN_FROM], int(size))


def open_codec(kind: str, folder: Path, digest: str) -> MapCodec:
    """The codec of a gallery's maps; see `LearntCodec.load` for what is raised."""
    if kind == "float16":
        return HalfCodec()
    return LearntCodec.load(folder, digest) if digest else LearntCodec()
