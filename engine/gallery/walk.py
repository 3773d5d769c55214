"""Iteration over all images of a gallery, including damaged ones; used to verify and to copy galleries."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.map_codecs import MapCodec, open_codec
from cvnet_engine.engine.gallery.shards import (
    IMAGE_TABLES,
    SELECT_COUNT,
    SELECT_IMAGE,
    ImageRows,
    StoredImage,
    checksum,
    parse_image,
    parse_maps,
    reading,
    shard_files,
    snapshot,
)


@dataclass(frozen=True)
class Intact:
    """An image whose rows are all undamaged."""

    image: StoredImage
    rows: ImageRows


@dataclass(frozen=True)
class Damaged:
    """A damaged image, or a damaged shard if its images are unknown, and the reason."""

    path: Path
    reason: str


def walk(path: Path, info: GalleryInfo) -> Iterator[Intact | Damaged]:
    """Read and check every image of a gallery in order; yield intact images and damage.

    Each image is read in one transaction, so that changes by another process do not look like damage.
    """
    codec = open_codec(info.maps, path, info.code)
    for file in shard_files(path, info.shards):
        try:
            with reading(file) as shard:
                yield from walk_shard(file, shard, codec)
        except GalleryError as error:
            yield Damaged(file, str(error).removeprefix(f"{file}: "))


def walk_shard(file: Path, shard: sqlite3.Connection, codec: MapCodec) -> Iterator[Intact | Damaged]:
    with snapshot(shard):
        (count,) = shard.execute(SELECT_COUNT).fetchone()
        ids = [id_ for (id_,) in shard.execute("SELECT id FROM images ORDER BY id")]
    if len(ids) < count:
        yield Damaged(file, f"has {len(ids)} of {count} images")
    for id_ in ids:
        with snapshot(shard):
            columns = shard.execute(SELECT_IMAGE, (id_,)).fetchone()
            rows = {
                table: shard.execute(f"SELECT * FROM {table} WHERE image = ? ORDER BY 1, 2", (id_,)).fetchall()
                for table in IMAGE_TABLES
            }
        if columns:  # None if removed meanwhile
            yield parse(file, columns, rows, codec)


def parse(
    file: Path, columns: tuple[Any, ...], rows: dict[str, list[tuple[Any, ...]]], codec: MapCodec
) -> Intact | Damaged:
    id_, name = columns[:2]
    path = Path(os.fsdecode(name)) if isinstance(name, bytes) and name else Path(f"{file}, row {id_}")
    try:
        image = parse_image(columns)
        parse_maps(rows["maps"], image.id, image.map_size, codec.decode)
        if any(checksum(*row[:-1]) != row[-1] for of_table in rows.values() for row in of_table):
            raise ValueError("checksum differs")
    except ValueError as error:
        return Damaged(path, str(error))
    return Intact(image, {table: [row[1:-1] for row in of_table] for table, of_table in rows.items()})
