"""Compression of feature maps: PCA rotation and scalar quantisation to a few bytes per position.

Decoded vectors are normalised again. The parameters are fitted to sample vectors. The rotation is an uncentred PCA.
Bits are assigned greedily to the dimension whose error the next bit reduces most (reverse water-filling), with the
distortion of the optimal b-bit scalar quantiser of a Gaussian (Max, Quantizing for Minimum Distortion, 1960, table I;
each further bit divides it by four). The levels are then fitted to the sample by Lloyd's method.
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
LEAST_NORM = 1e-12  # avoids division by zero


@dataclass(frozen=True)
class MapCompression:
    """Compression parameters for the maps of one area scale.

    Attributes:
        rotation: (256, d) float32, orthonormal columns: the d principal directions that have bits.
        levels: for each of the d dimensions, its quantisation levels (2^b,) float32, ascending.
    """

    rotation: Array
    levels: tuple[Array, ...]

    @property
    def bits(self) -> list[int]:
        """Bits of each dimension."""
        return [len(levels).bit_length() - 1 for levels in self.levels]

    @cached_property
    def places(self) -> tuple[tuple[int, int], ...]:
        """For each dimension, the index of its byte and its lowest bit in that byte."""
        return places_of(self.bits)

    @property
    def position_bytes(self) -> int:
        return self.places[-1][0] + 1

    @cached_property
    def dimensions(self) -> list[slice]:
        """For each byte, the dimensions stored in it."""
        edges = np.searchsorted([byte for byte, _ in self.places], np.arange(self.position_bytes + 1)).tolist()
        return list(starmap(slice, pairwise(edges)))

    @cached_property
    def tables(self) -> Array:
        """Decoding table (d, 256) float32: the level of each dimension for every value of its byte."""
        byte = np.arange(1 << BYTE)
        return np.stack(
            [levels[(byte >> shift) % len(levels)] for levels, (_, shift) in zip(self.levels, self.places, strict=True)]
        )

    def encode(self, feature_map: Array) -> bytes:
        """Compress a floating-point map (256, h, w) to the bytes of an array (position_bytes, h, w) uint8."""
        values = self.rotation.T @ feature_map.reshape(MAP_DIM, -1).astype(np.float32)  # (d, h * w)
        codes = np.zeros((self.position_bytes, values.shape[1]), np.uint8)
        for row, levels, (byte, shift) in zip(values, self.levels, self.places, strict=True):
            nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, row)
            codes[byte] |= (nearest << shift).astype(np.uint8)
        return codes.tobytes()

    def decode(self, data: bytes, height: int, width: int) -> Array:
        """Decompress to a map (256, h, w) float32, unit norm at each position."""
        return self.rotate(self.coordinates(data, height, width))

    def coordinates(self, data: bytes, height: int, width: int) -> Array:
        """Decompress to PCA coordinates (d, h, w) float32, unit norm at each position, the input of `rotate`."""
        codes = np.frombuffer(data, np.uint8).reshape(self.position_bytes, height * width)
        values = np.empty((len(self.levels), height * width), np.float32)
        for dimensions, byte in zip(self.dimensions, codes.astype(np.intp), strict=True):
            np.take(self.tables[dimensions], byte, axis=1, out=values[dimensions], mode="clip")
        values /= np.maximum(np.sqrt(np.einsum("dn,dn->n", values, values)), LEAST_NORM)
        return values.reshape(-1, height, width)

    def rotate(self, coordinates: Array) -> Array:
        """Rotate PCA coordinates (d, h, w) float32 back to a map (256, h, w) float32."""
        columns = coordinates.reshape(len(coordinates), -1)
        rotated: Array = product(self.rotation, columns) if is_ready() else self.rotation @ columns
        return rotated.reshape(-1, *coordinates.shape[1:])


def fit(vectors: Array, position_bytes: int) -> MapCompression:
    """Fit a compression of `position_bytes` bytes per position to sample vectors (n, 256) float32 of unit norm."""
    moments, axes = np.linalg.eigh(vectors.T @ vectors / np.float32(len(vectors)))
    bits = share_bits(moments, position_bytes)
    order = [dimension for byte in pack(bits) for dimension in byte]
    rotation = np.ascontiguousarray(axes[:, order], np.float32)
    values = rotation.T @ vectors.T  # (d, n)
    return MapCompression(rotation, tuple(fit_levels(row, 1 << bits[d]) for row, d in zip(values, order, strict=True)))


def share_bits(moments: Array, position_bytes: int) -> list[int]:
    """Return the bits of each dimension, given their second moments (n,); no dimension crosses a byte boundary."""
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
    """Return the decrease of a dimension's mean squared error by one more bit."""
    return moment * (LOSS[bits] - LOSS[bits + 1])


def pack(bits: Sequence[int]) -> list[list[int]]:
    """Distribute dimensions over bytes, first fit decreasing; return the dimensions of each byte."""
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
    """Return byte and lowest bit of each dimension, given the widths in bits in the order of `pack`."""
    found, byte, bit = [], 0, 0
    for width in widths:
        if bit + width > BYTE:
            byte, bit = byte + 1, 0
        found.append((byte, bit))
        bit += width
    return tuple(found)


def fit_levels(values: Array, count: int) -> Array:
    """Fit ascending levels (count,) float32 to values (n,) with least mean squared error, by Lloyd's method."""
    ordered = np.sort(values.astype(np.float64))
    sums = np.concatenate([[0], np.cumsum(ordered)])
    levels = np.quantile(ordered, (np.arange(count) + 0.5) / count)
    for _ in range(LLOYD_ROUNDS):
        inner = np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2)
        edges = np.concatenate([[0], inner, [len(ordered)]])
        counts = np.diff(edges)
        levels = np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), levels)
    return levels.astype(np.float32)
