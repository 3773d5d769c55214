"""The retrieval path: an image to features, a query and candidates to pair scores.

decode -> scale -> engines -> Features -> global search -> Ranking -> pair scores -> Ranking
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.bundle import Bundle
from engine.errors import ImageError
from engine.features import Features
from engine.images import check_size, limit_side, normalise, read, rescale
from engine.session import Array, Engine, open_engine

SCALES = (0.7071, 1.0, 1.4142)  # of the image's sides; the maps come from the middle one
BATCH = 4  # candidates of equal size scored at once


class Collection(Protocol):
    """Images that can be searched and reranked: a gallery, or a benchmark's reference."""

    @property
    def descriptors(self) -> Array:
        """(n, 2048) float32, unit norm."""

    def map_size(self, row: int) -> tuple[int, int]:
        """Positions of the row's full-scale map."""

    def features(self, row: int) -> Features:
        """Features of the row."""


@dataclass(frozen=True)
class Retriever:
    """The three engines of a model, put to work on images."""

    descriptor: Engine
    features: Engine
    reranker: Engine

    @classmethod
    def open(cls, bundle: Bundle, threads: int | None = None) -> Retriever:
        """The retriever of a bundle, on the backend that the bundle was built for."""
        backend = bundle.manifest.backend
        return cls(
            *(open_engine(bundle.graph(name), backend, threads) for name in ("descriptor", "features", "reranker"))
        )

    def extract(self, image: Array) -> Features:
        """Features of a BGR image (H, W, 3) uint8: descriptors of three scales averaged, maps of the image as it is.

        Raises:
            ImageError: a side that is too short.
        """
        check_size(image)
        descriptors, maps = [], ()
        for scale in SCALES:
            engine = self.features if scale == 1 else self.descriptor
            outputs = engine.run({"image": normalise(rescale(image, scale))})
            descriptors.append(outputs.pop("descriptor")[0])
            if scale == 1:
                maps = tuple(array[0] for array in outputs.values())
        mean = np.mean(descriptors, axis=0)
        return Features(mean / np.linalg.norm(mean), maps)

    def extract_file(self, path: Path, bbx: Sequence[float] | None = None, max_side_px: int | None = None) -> Features:
        """Features of an image file, cropped to a box (x1, y1, x2, y2 in pixels), then shrunk to a longest side.

        Raises:
            ImageError: the path, and what is wrong with it.
        """
        try:
            return self.extract(limit_side(read(path, bbx), max_side_px))
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error

    def score(self, query: Features, keys: Sequence[Features]) -> Array:
        """Pair scores (len(keys),) float32 in 0..1 of a query and keys of one map size.

        Maps may be float16 or float32.
        """
        feeds = {f"query_{s}": stack([m]) for s, m in enumerate(query.maps)}
        feeds |= {f"key_{s}": stack(maps) for s, maps in enumerate(zip(*(key.maps for key in keys), strict=True))}
        return self.reranker.run(feeds)["score"]

    def score_rows(
        self, query: Features, collection: Collection, rows: Sequence[int], done: Callable[[int], None] = lambda _: None
    ) -> Array:
        """Pair scores (len(rows),) float32 of a query and rows of a collection; `done(n)` is called after each n."""
        scores: dict[int, float] = {}
        for batch in batches_of_equal(rows, collection.map_size):
            keys = [collection.features(row) for row in batch]
            scores |= zip(batch, self.score(query, keys), strict=True)
            done(len(batch))
        return np.array([scores[row] for row in rows], np.float32)

    def close(self) -> None:
        for engine in (self.descriptor, self.features, self.reranker):
            engine.close()


def stack(maps: Sequence[Array]) -> Array:
    """Maps of one size as a batch (B, C, h, w) float32; the engines' arithmetic starts from full precision."""
    return np.stack(maps, dtype=np.float32)


def batches_of_equal(rows: Sequence[int], size_of: Callable[[int], tuple[int, int]]) -> Iterator[list[int]]:
    """`rows` in batches whose members have one size: padding maps to a common size would change their scores."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in rows:
        groups[size_of(row)].append(row)
    for group in groups.values():
        for start in range(0, len(group), BATCH):
            yield group[start : start + BATCH]
