"""A unit map as the bytes that a gallery keeps: 16 bits a value, or 8 with a scale per position."""

from __future__ import annotations

import numpy as np

from engine.contract import Array

MAP_TYPES = ("float16", "int8")
INT8_MAX = 127


def encode_map(array: Array, map_type: str) -> bytes:
    """A map (C, h, w) floating as bytes.

    `int8` is the values (C, h, w), each position's largest at 127, then the scales (h, w) float32 that undo it.
    """
    if map_type == "float16":
        return array.astype(np.float16).tobytes()
    scales = np.abs(array).max(axis=0).astype(np.float32) / INT8_MAX  # (h, w)
    values = np.rint(array / np.where(scales > 0, scales, 1)).astype(np.int8)
    data: bytes = values.tobytes() + scales.tobytes()
    return data


def decode_map(data: bytes, shape: tuple[int, int, int], map_type: str) -> Array:
    """The map (C, h, w) of `encode_map`d bytes: float16 as stored, or float32 from int8."""
    if map_type == "float16":
        return np.frombuffer(data, np.float16).reshape(shape)
    count = int(np.prod(shape))
    values = np.frombuffer(data, np.int8, count).reshape(shape)
    return values * np.frombuffer(data, np.float32, offset=count).reshape(shape[1:])
