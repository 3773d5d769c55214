"""Features out of nothing, for tests of what keeps them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.info import FORMAT, GalleryInfo
from cvnet_engine.engine.gallery.shards import FileStamp
from cvnet_engine.engine.geometry import IMAGE_SCALES, Scales
from cvnet_engine.engine.images import Box, ImageLike, load

INFO = GalleryInfo(FORMAT, "digest-fp32", "seeded:0", 1024)
STAMP = FileStamp(1000, 1_700_000_000_000_000_000, "ab" * 32)


def features(seed: int, map_sizes: Sequence[tuple[int, int]] = ((2, 3), (3, 4), (4, 6))) -> Features:
    """A random unit descriptor and random maps in float16."""
    rng = np.random.default_rng(seed)
    descriptor = rng.standard_normal(2048)
    maps = tuple(rng.standard_normal((256, *size)).astype(np.float16) for size in map_sizes)
    return Features((descriptor / np.linalg.norm(descriptor)).astype(np.float32), maps)


@dataclass
class FakeRetriever:
    """Stands in for a `Retriever`: features that depend on the image alone, at once. `seen` counts the images."""

    seen: int = 0
    scales: Scales = IMAGE_SCALES
    streams: int = 1

    def extract(self, image: Array) -> Features:
        self.seen += 1
        return features(zlib.crc32(image.tobytes()), ((8, 10), (11, 14), (16, 20)))

    def extract_from(self, source: ImageLike, box: Box | None = None, max_side_px: int | None = None) -> Features:
        return self.extract(load(source, box, max_side_px))

    def score(self, query: Features, keys: Sequence[Features]) -> Array:
        """The mean product of the full-scale maps."""
        return np.array([np.mean(query.maps[-1].astype(np.float32) * key.maps[-1]) for key in keys])


def assert_equal(one: Features, other: Features) -> None:
    assert np.array_equal(one.descriptor, other.descriptor)
    assert [m.dtype for m in one.maps] == [np.float16] * len(other.maps)
    assert all(np.array_equal(a, b) for a, b in zip(one.maps, other.maps, strict=True))
