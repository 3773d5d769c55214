"""Indexing of image files into a gallery, with the time of each image."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.indexing import IndexReport, index
from cvnet_engine.engine.gallery.info import FORMAT, GalleryInfo
from cvnet_engine.engine.gallery.shards import FileStamp
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.images import load as load_image
from cvnet_engine.engine.retrieval.engines import Engines

INFO = GalleryInfo(FORMAT, "benchmark", "benchmark", None)
STAMP = FileStamp(0, 0, "")


def index_files(files: Sequence[Path], engines: Engines, folder: Path) -> list[float]:
    """Index into a new gallery; returns the seconds of each image from its start until it was stored."""
    begun: dict[Path, float] = {}
    seconds: list[float] = []

    def given() -> Iterator[Path]:
        for file in files:
            begun[file] = time.perf_counter()
            yield file

    with GalleryWriter(folder, INFO) as writer:
        index(given(), engines, writer, None, IndexReport(), lambda file: seconds.append(since(begun[file])))
    return seconds


def index_batches(files: Sequence[Path], engines: Engines, folder: Path, batch: int) -> list[float]:
    """Index with `batch` images of one size per extraction; the next batch is read meanwhile."""
    seconds: list[float] = []

    def load(group: Sequence[Path]) -> tuple[float, list[Array]]:
        return time.perf_counter(), list(map(load_image, group))

    with GalleryWriter(folder, INFO) as writer, ThreadPoolExecutor(1) as reader:
        groups = [files[start : start + batch] for start in range(0, len(files), batch)]
        for group, (begun, images) in zip(groups, reader.map(load, groups), strict=True):
            for file, features in zip(group, extract_batch(engines, images), strict=True):
                writer.put(file, STAMP, features)
                seconds.append(since(begun))
    return seconds


def extract_batch(engines: Engines, images: Sequence[Array]) -> list[Features]:
    """Extract BGR images (H, W, 3) uint8 of one size; the features equal those of `Engines.extract`."""

    def inputs(scale: float) -> Array:
        return np.concatenate([engines.kind.network_input(image, scale) for image in images])

    return engines.describe((scale, inputs(scale)) for scale in engines.scales)


def since(begun: float) -> float:
    return time.perf_counter() - begun
