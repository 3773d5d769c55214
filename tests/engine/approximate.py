"""A gallery that is large enough for an approximate index."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.lab.generated import write_shard
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.gallery.ann_file import AnnFile
from cvnet_engine.engine.gallery.info import write_info
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import shard_file
from cvnet_engine.engine.retrieval.ann_building import build
from tests.engine.fakes import INFO

PLACES, VIEWS, SHARD = 150, 16, 1000
RECALL = 0.95


class NoPairs:
    """A retriever that scores no pair."""

    def score_batches(self, *_):
        yield from ()


def photographs(places: Array, seed: int) -> Array:
    """(n, 2048) float32 unit descriptors, one of each place (n,)."""
    centres = np.random.default_rng(0).standard_normal((PLACES, 2048)) / (1 + np.arange(2048))
    noise = np.random.default_rng(seed).standard_normal((len(places), 2048)) / (1 + np.arange(2048))
    found = centres[places] + noise
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def make_gallery(path: Path) -> None:
    """A gallery of `PLACES` x `VIEWS` images in three shards, and its approximate index."""
    path.mkdir()
    rows = photographs(np.repeat(np.arange(PLACES), VIEWS), 1)
    starts = range(0, len(rows), SHARD)
    for number, start in enumerate(starts):
        write_shard(shard_file(path, number), start, rows[start : start + SHARD], {})
    write_info(path, replace(INFO, shards=len(starts)))
    with Gallery(path) as gallery:
        AnnFile.of(build(gallery.descriptors, RECALL), RECALL, gallery.shards).save(path)
