"""Operations and bytes of each stage, computed from shapes.

A multiplication and an addition are two operations. Bytes are inputs read once and outputs written once, including
weights; other memory traffic is not counted. Pair scores are always counted in the factored form (decision 001), so
that all methods are compared with one figure. A method that needs fewer operations can exceed 100 % of a limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cvnet_engine.engine.geometry import (
    AREA_SCALES,
    DESCRIPTOR_DIM,
    IMAGE_SCALES,
    LOCAL_DIM,
    MAP_DIM,
    PAIR_LAYERS,
    Size,
    map_size,
    scaled,
    unit_map_sizes,
)
from cvnet_engine.engine.retrieval.descriptors import DESCRIPTORS

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}  # bottlenecks per stage, by depth
WIDTHS = (64, 128, 256, 512)  # inner channels of a bottleneck, by stage; it outputs four times as many
FLOAT, HALF = 4, 2  # bytes


@dataclass(frozen=True)
class Cost:
    """Operations and bytes of one execution of a stage."""

    flop: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flop + other.flop, self.bytes + other.bytes)

    def __mul__(self, times: float) -> Cost:
        return Cost(self.flop * times, self.bytes * times)


@dataclass(frozen=True)
class Network:
    """The model that extracts features: ResNet depth, and a descriptor name of `DESCRIPTORS`."""

    depth: int
    descriptor: str = "cvnet"

    def scaled(self, image: Size, scale: float) -> Size:
        return DESCRIPTORS[self.descriptor].scaled(image, scale)


def convolution(inputs: int, outputs: int, kernel: int, size: Size) -> float:
    """Return the operations of a 2D convolution that outputs `size` positions."""
    return 2.0 * inputs * outputs * kernel**2 * size[0] * size[1]


def halved(size: Size) -> Size:
    """Return the positions after a stride of 2, rounded up."""
    return -(-size[0] // 2), -(-size[1] // 2)


def convolutions(depth: int, image: Size, stages: int = len(WIDTHS)) -> Iterator[tuple[int, int, int, Size]]:
    """Yield inputs, outputs, kernel and output size of the trunk's convolutions, for an image (height, width) px.

    Args:
        stages: number of stages after the stem.
    """
    size = halved(image)
    yield 3, 64, 7, size
    size, channels = halved(size), 64
    for stage, (count, width) in enumerate(zip(BLOCKS[depth][:stages], WIDTHS[:stages], strict=True)):
        for block in range(count):
            yield channels, width, 1, size
            if stage and not block:
                size = halved(size)
            yield width, width, 3, size
            yield width, 4 * width, 1, size
            if not block:
                yield channels, 4 * width, 1, size  # projection of the shortcut
            channels = 4 * width


def descriptor(network: Network, image: Size) -> Cost:
    """Return the cost of a descriptor at one scale, from an image (height, width) px."""
    layers = list(convolutions(network.depth, image))
    whiten = DESCRIPTOR_DIM**2
    weights = sum(inputs * outputs * kernel**2 for inputs, outputs, kernel, _ in layers) + whiten
    moved = FLOAT * (weights + 3 * image[0] * image[1] + DESCRIPTOR_DIM)
    return Cost(sum(convolution(*layer) for layer in layers) + 2.0 * whiten, moved)


def map_values(image: Size) -> int:
    """Return the number of values in the three feature maps."""
    return MAP_DIM * sum(height * width for height, width in unit_map_sizes(map_size(image)))


def features(network: Network, image: Size) -> Cost:
    """Return the cost of the descriptor and feature maps at scale 1.

    SuperGlobal's maps need a second pass through the trunk after the stem.
    """
    _, *behind_stem = convolutions(network.depth, image, stages=3)
    again = sum(convolution(*layer) for layer in behind_stem) if network.descriptor == "superglobal" else 0.0
    projections = sum(convolution(LOCAL_DIM, MAP_DIM, 3, size) for size in unit_map_sizes(map_size(image)))
    weights = len(AREA_SCALES) * LOCAL_DIM * MAP_DIM * 9
    return descriptor(network, image) + Cost(again + projections, FLOAT * (weights + map_values(image)))


def extract(network: Network, image: Size) -> Cost:
    """Return the cost of the features of an image at all scales."""
    others = [descriptor(network, network.scaled(image, scale)) for scale in IMAGE_SCALES if scale != 1]
    return sum(others, features(network, image))


def pair(query: Size, key: Size) -> Cost:
    """Return the cost of a pair score of two images (height, width) px from their feature maps."""
    q, k = map_size(query), map_size(key)
    operations = correlation(q, k)
    for inputs, outputs, kernel, stride in PAIR_LAYERS:
        q, k = (halved(q), halved(k)) if stride == 2 else (q, k)
        over_query = q[0] * q[1] * convolution(inputs, outputs, kernel, k)  # with a stride, only at kept positions
        operations += 2 * over_query
    return Cost(operations, HALF * (map_values(query) + map_values(key)))


def correlation(q: Size, k: Size) -> float:
    """Return the operations of the nine correlations for block 1.

    In both directions, the even positions of one image are correlated with all positions of the other.
    """
    positions_q, positions_k = q[0] * q[1], k[0] * k[1]
    even_q, even_k = (height * width for height, width in (halved(q), halved(k)))
    return 2.0 * MAP_DIM * len(AREA_SCALES) ** 2 * (even_k * positions_q + even_q * positions_k)


def normalise(image: Size) -> Cost:
    """Return the cost of converting an 8-bit image to the network's inputs at all scales."""
    inputs = [scaled(image, scale) for scale in IMAGE_SCALES]
    return Cost(0.0, sum(3 * image[0] * image[1] + 3 * FLOAT * height * width for height, width in inputs))


def decode(image: Size, file_bytes: int) -> Cost:
    """Return the cost of decoding a file to an 8-bit image."""
    return Cost(0.0, file_bytes + 3 * image[0] * image[1])


def gallery_read(image: Size) -> Cost:
    """Return the cost of reading stored feature maps."""
    return Cost(0.0, 2 * HALF * map_values(image))


def search(images: int, bytes_per_value: int) -> Cost:
    """Return the cost of the inner products of a query with every descriptor."""
    return Cost(2.0 * images * DESCRIPTOR_DIM, float(images * DESCRIPTOR_DIM * bytes_per_value))
