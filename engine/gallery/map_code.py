"""A unit map in a few bytes a position: rotated, its leading dimensions each coded by a scalar, unit norm again after.

A code is learnt from vectors like those that it will keep. The rotation is that of their principal components about
the origin. Bits go one at a time to the dimension where the next one saves most: reverse water-filling, with the loss
of the best scalar quantiser of b bits for a Gaussian (Max, Quantizing for Minimum Distortion, 1960, table I; a quarter
for each bit beyond). Levels are then fitted to the values themselves by Lloyd's method.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, starmap

import numpy as np

from cvnet_engine.engine.backends.native.library import is_ready, product
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.geometry import MAP_DIM

BYTE = 8
LOSS = (1.0, 0.3634, 0.1175, 0.03454, 0.009497, 0.002499, 2.5e-3 / 4, 2.5e-3 / 16, 2.5e-3 / 64)  # of 0 to 8 bits
LLOYD_ROUNDS = 30
LEAST_NORM = 1e-12  # of a decoded vector before it is divided by it


@dataclass(frozen=True)
class MapCode:
    """A code for the maps of one area scale.

    Attributes:
        rotation: (256, d) float32, orthonormal columns; the d dimensions that bits are spent on. Of a code that
            decodes to D dimensions, see `reduced`, it is (D, d).
        levels: for each of the d, the values (2^b,) float32 that it is kept as, ascending.
    """

    rotation: Array
    levels: tuple[Array, ...]

    @cached_property
    def places(self) -> tuple[tuple[int, int], ...]:
        """For each dimension the byte that it is in, and its lowest bit there."""
        return places_of([len(levels).bit_length() - 1 for levels in self.levels])

    @property
    def position_bytes(self) -> int:
        return self.places[-1][0] + 1

    @cached_property
    def dimensions(self) -> list[slice]:
        """For each byte the dimensions that are in it."""
        edges = np.searchsorted([byte for byte, _ in self.places], np.arange(self.position_bytes + 1)).tolist()
        return list(starmap(slice, pairwise(edges)))

    @cached_property
    def tables(self) -> Array:
        """(d, 256) float32: each dimension's value for every byte."""
        byte = np.arange(1 << BYTE)
        return np.stack(
            [levels[(byte >> shift) % len(levels)] for levels, (_, shift) in zip(self.levels, self.places, strict=True)]
        )

    def encode(self, unit_map: Array) -> bytes:
        """A map (256, h, w) floating as (bytes, h, w) uint8."""
        values = self.rotation.T @ unit_map.reshape(MAP_DIM, -1).astype(np.float32)  # (d, h * w)
        codes = np.zeros((self.position_bytes, values.shape[1]), np.uint8)
        for row, levels, (byte, shift) in zip(values, self.levels, self.places, strict=True):
            nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, row)
            codes[byte] |= (nearest << shift).astype(np.uint8)
        return codes.tobytes()

    def decode(self, data: bytes, height: int, width: int) -> Array:
        """The map (256, h, w) float32 of `encode`d bytes, unit norm at each position; (D, h, w) where it is reduced."""
        return self.rotate(self.coordinates(data, height, width))

    def coordinates(self, data: bytes, height: int, width: int) -> Array:
        """What `rotate` makes the map of: (d, h, w) float32, unit norm at each position."""
        codes = np.frombuffer(data, np.uint8).reshape(self.position_bytes, height * width)
        values = np.empty((len(self.levels), height * width), np.float32)
        for dimensions, byte in zip(self.dimensions, codes.astype(np.intp), strict=True):
            np.take(self.tables[dimensions], byte, axis=1, out=values[dimensions], mode="clip")
        values /= np.maximum(np.sqrt(np.einsum("dn,dn->n", values, values)), LEAST_NORM)
        return values.reshape(-1, height, width)

    def rotate(self, coordinates: Array) -> Array:
        """The map (256, h, w) float32, or (D, h, w), of coordinates (d, h, w) float32."""
        columns = coordinates.reshape(len(coordinates), -1)
        rotated: Array = product(self.rotation, columns) if is_ready() else self.rotation @ columns
        return rotated.reshape(-1, *coordinates.shape[1:])


def learn(vectors: Array, position_bytes: int) -> MapCode:
    """The code of `position_bytes` a position for vectors (n, 256) float32 of unit norm like these."""
    moments, axes = np.linalg.eigh(vectors.T @ vectors / np.float32(len(vectors)))
    bits = share_bits(moments, position_bytes)
    order = [dimension for byte in pack(bits) for dimension in byte]
    rotation = np.ascontiguousarray(axes[:, order], np.float32)
    values = rotation.T @ vectors.T  # (d, n)
    return MapCode(rotation, tuple(fit_levels(row, 1 << bits[d]) for row, d in zip(values, order, strict=True)))


def share_bits(moments: Array, position_bytes: int) -> list[int]:
    """Bits for each dimension, given its second moment (n,); they fit into the bytes without parting a dimension's."""
    bits = [0] * len(moments)
    savings = [(-saving(moment, 0), dimension) for dimension, moment in enumerate(moments.tolist())]
    heapq.heapify(savings)
    while savings:
        _, dimension = heapq.heappop(savings)
        bits[dimension] += 1
        if len(pack(bits)) > position_bytes:
            bits[dimension] -= 1
        elif bits[dimension] < BYTE:
            heapq.heappush(savings, (-saving(float(moments[dimension]), bits[dimension]), dimension))
    return bits


def saving(moment: float, bits: int) -> float:
    """What one more bit takes off a dimension's mean squared error."""
    return moment * (LOSS[bits] - LOSS[bits + 1])


def pack(bits: Sequence[int]) -> list[list[int]]:
    """Dimensions by the byte that they go into: the widest first, each into the first byte with room."""
    bytes_: list[list[int]] = []
    used: list[int] = []
    place, width = 0, BYTE
    for dimension in sorted((d for d, b in enumerate(bits) if b), key=lambda d: -bits[d]):
        if bits[dimension] < width:
            place, width = 0, bits[dimension]
        while place < len(used) and used[place] + width > BYTE:
            place += 1
        if place == len(used):
            bytes_.append([])
            used.append(0)
        bytes_[place].append(dimension)
        used[place] += width
    return bytes_


def places_of(widths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Byte and lowest bit of each dimension, of these widths in `pack`'s order: the next byte when one is full."""
    found, byte, bit = [], 0, 0
    for width in widths:
        if bit + width > BYTE:
            byte, bit = byte + 1, 0
        found.append((byte, bit))
        bit += width
    return tuple(found)


def fit_levels(values: Array, count: int) -> Array:
    """`count` levels (count,) float32, ascending, near to values (n,) in the mean square: Lloyd's method."""
    ordered = np.sort(values.astype(np.float64))
    sums = np.concatenate([[0], np.cumsum(ordered)])
    levels = np.quantile(ordered, (np.arange(count) + 0.5) / count)
    for _ in range(LLOYD_ROUNDS):
        inner = np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2)
        edges = np.concatenate([[0], inner, [len(ordered)]])
        counts = np.diff(edges)
        levels = np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), levels)
    return levels.astype(np.float32)
