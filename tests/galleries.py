"""Galleries for tests: features, galleries that hold them, and changes behind their back.

    features(seed)                  random features; `path(seed)` is the image that `write` stores them for
    FakeEngines                     stands in for `Engines`: features that depend on the image alone, at once
    write(gallery, seeds)           adds images of these seeds; `put` does it with a writer that is open
    read(gallery)                   the seeds of a gallery's images, after checking all of their features
    index_photos(photos, gallery)   indexes photos with a `FakeEngines`
    rows(gallery)                   every row of every table, to compare two galleries
    execute(gallery, SQL)           changes a shard
    flip(file), flip_column(...)    flips a bit of a file or of a row
    write_approximate(folder)       a gallery with an approximate index (fixture `approximate_gallery`)

`INFO` and `STAMP` are the settings of these galleries and the stamp of their images.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.ann_file import AnnFile
from cvnet_engine.engine.gallery.indexing import IndexReport, find_images, index
from cvnet_engine.engine.gallery.info import FORMAT, GalleryInfo, write_info
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import FileStamp, shard_file
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.geometry import IMAGE_SCALES, Scales, Size
from cvnet_engine.engine.images import Box, ImageLike, load
from cvnet_engine.engine.retrieval.ann_building import build

INFO = GalleryInfo(FORMAT, "digest-fp32", "seeded:0", 1024)
STAMP = FileStamp(1000, 1_700_000_000_000_000_000, "ab" * 32)
SMALL = ((2, 3), (3, 4), (4, 6))  # map sizes
LARGE = ((8, 10), (11, 14), (16, 20))  # those of an image of 256x320 px


def features(seed: int, map_sizes: Sequence[Size] = SMALL) -> Features:
    """A random unit descriptor and random maps in float16."""
    rng = np.random.default_rng(seed)
    descriptor = rng.standard_normal(2048)
    maps = tuple(rng.standard_normal((256, *size)).astype(np.float16) for size in map_sizes)
    return Features((descriptor / np.linalg.norm(descriptor)).astype(np.float32), maps)


@dataclass
class FakeEngines:
    """Stands in for `Engines`; `seen` counts the images that were extracted."""

    seen: int = 0
    scales: Scales = IMAGE_SCALES
    streams: int = 1

    def extract(self, image: Array) -> Features:
        self.seen += 1
        return features(zlib.crc32(image.tobytes()), LARGE)

    def extract_from(self, source: ImageLike, box: Box | None = None, max_side_px: int | None = None) -> Features:
        return self.extract(load(source, box, max_side_px))

    def score(self, query: Features, keys: Sequence[Features]) -> Array:
        """The mean product of the full-scale maps."""
        return np.array([np.mean(query.maps[-1].astype(np.float32) * key.maps[-1]) for key in keys])


class NoPairs:
    """Stands in for `Engines` in searches that score no pair."""

    def score_batches(self, *_):
        yield from ()


def assert_equal(one: Features, other: Features) -> None:
    """Both are equal, maps in float16."""
    assert np.array_equal(one.descriptor, other.descriptor)
    assert [m.dtype for m in one.maps] == [np.float16] * len(other.maps)
    assert all(np.array_equal(a, b) for a, b in zip(one.maps, other.maps, strict=True))


# ------------------------------------------------------------------------------------------- made and read


def path(seed: int) -> Path:
    return Path(f"/photos/{seed}.jpg")


def put(writer: GalleryWriter, seeds: Iterable[int], sizes: Sequence[Size] = SMALL, stamp: FileStamp = STAMP) -> None:
    for seed in seeds:
        writer.put(path(seed), stamp, features(seed, sizes))


def write(
    gallery: Path,
    seeds: Iterable[int],
    per_shard: int = 100,
    info: GalleryInfo = INFO,
    sizes: Sequence[Size] = SMALL,
    stamp: FileStamp = STAMP,
) -> Path:
    """Add images to a gallery, new or not."""
    with GalleryWriter(gallery, info, per_shard) as writer:
        put(writer, seeds, sizes, stamp)
    return gallery


def read(gallery: Path, sizes: Sequence[Size] = SMALL) -> list[int]:
    """The seeds of a gallery's images, in order; all that is stored must be what was put in."""
    with Gallery(gallery) as opened:
        seeds = [int(path.stem) for path in opened.paths]
        assert list(opened.paths) == list(map(path, seeds))
        assert opened.descriptors.shape == (len(seeds), 2048)
        for row, seed in enumerate(seeds):
            assert opened.map_size(row) == sizes[-1]
            assert_equal(opened.features(row), features(seed, sizes))
    return seeds


def index_photos(
    photos: Path | Sequence[Path],
    gallery: Path,
    per_shard: int = 100,
    info: GalleryInfo = INFO,
    engines: FakeEngines | None = None,
    max_side_px: int | None = None,
) -> IndexReport:
    report, sources = IndexReport(), [photos] if isinstance(photos, Path) else photos
    with GalleryWriter(gallery, info, per_shard) as writer:
        index(find_images(sources), engines or FakeEngines(), writer, max_side_px, report)
    return report


def rows(gallery: Path) -> list[tuple[object, ...]]:
    """Every row of every table of every shard."""
    found: list[tuple[object, ...]] = []
    for file in sorted(gallery.glob("shard-*.sqlite")):
        with closing(sqlite3.connect(file)) as shard:
            for table in ("images", "maps", "taken", "contents"):
                found += sorted(shard.execute(f"SELECT * FROM {table}"), key=str)
    return found


# -------------------------------------------------------------------------------------------------- damage


def execute(gallery: Path, *statements: str, values: Sequence[object] = (), shard: int = 0) -> None:
    """Run SQL that must change something."""
    with closing(sqlite3.connect(shard_file(gallery, shard))) as connection, connection:
        for statement in statements:
            assert connection.execute(statement, values).rowcount


def flip(file: Path, position: int = 0, bit: int = 0) -> None:
    """Flip a bit of a file."""
    data = bytearray(file.read_bytes())
    data[position] ^= 1 << bit
    file.write_bytes(data)


def flip_column(gallery: Path, table: str, column: str, image: int = 0, position: int = 0, scale: int = 0) -> None:
    """Flip a bit in a column of the first shard's row of an image."""
    where = f"id = {image}" if table == "images" else f"image = {image} AND scale = {scale}"
    with closing(sqlite3.connect(shard_file(gallery, 0))) as connection, connection:
        (data,) = connection.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchone()
        changed = bytearray(data)
        changed[position] ^= 1
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (bytes(changed),))


# ------------------------------------------------------------------------------------- approximate index

PLACES, VIEWS, SHARD = 150, 16, 1000
RECALL = 0.95


def photographs(places: Array, seed: int) -> Array:
    """(n, 2048) float32 unit descriptors, one of each place (n,)."""
    centres = np.random.default_rng(0).standard_normal((PLACES, 2048)) / (1 + np.arange(2048))
    noise = np.random.default_rng(seed).standard_normal((len(places), 2048)) / (1 + np.arange(2048))
    found = centres[places] + noise
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def write_approximate(folder: Path) -> None:
    """A gallery of `PLACES` x `VIEWS` images in three shards, and its approximate index.

    Another process makes it: waiting for each other, the threads of BLAS take ten times as long as one.
    """
    alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command, root = [sys.executable, "-m", "tests.galleries", str(folder)], Path(__file__).parents[1]
    subprocess.run(command, check=True, env=os.environ | alone, cwd=root)


def main() -> None:
    from benchmarks.lab.scale import write_shard

    folder = Path(sys.argv[1])
    folder.mkdir()
    descriptors = photographs(np.repeat(np.arange(PLACES), VIEWS), 1)
    starts = range(0, len(descriptors), SHARD)
    for number, start in enumerate(starts):
        write_shard(shard_file(folder, number), start, descriptors[start : start + SHARD])
    write_info(folder, replace(INFO, shards=len(starts)))
    with Gallery(folder) as gallery:
        AnnFile.of(build(gallery.descriptors, RECALL), RECALL, gallery.shards).save(folder)


if __name__ == "__main__":
    main()
