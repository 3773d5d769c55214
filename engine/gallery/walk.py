"""Iteration over all images of a gallery, including damaged ones; used to verify and to merge galleries."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.map_codec import MapCodec, open_codec
from cvnet_engine.engine.gallery.shards import (
    OF_AN_IMAGE,
    SELECT_COUNT,
    SELECT_IMAGE,
    Belongings,
    StoredImage,
    checksum,
    connect,
    parse_image,
    parse_maps,
    shard_files,
    snapshot,
    translated_errors,
)


@dataclass(frozen=True)
class Whole:
    """An image whose rows are all undamaged."""

    image: StoredImage
    belongings: Belongings


@dataclass(frozen=True)
class Damaged:
    """A damaged image, or a damaged shard if its images are unknown, and the reason."""

    path: Path
    reason: str


def walk(path: Path, info: GalleryInfo) -> Iterator[Whole | Damaged]:
    """Read and check every image of a gallery in order; yield intact images and damage.

    Each image is read in one transaction, so that changes by another process do not look like damage.
    """
    codec = open_codec(info.maps, path, info.code)
    for file in shard_files(path, info.shards):
        try:
            if not file.exists():
                raise GalleryError(f"{file}: missing from the gallery")
            with contextlib.closing(connect(file, readonly=True)) as shard, translated_errors(file):
                yield from walk_shard(file, shard, codec)
        except GalleryError as error:
            yield Damaged(file, str(error).removeprefix(f"{file}: "))


def walk_shard(file: Path, shard: sqlite3.Connection, codec: MapCodec) -> Iterator[Whole | Damaged]:
    with snapshot(shard):
        (count,) = shard.execute(SELECT_COUNT).fetchone()
        ids = [id_ for (id_,) in shard.execute("SELECT id FROM images ORDER BY id")]
        there = {name for (name,) in shard.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    tables = [table for table in OF_AN_IMAGE if table in there]  # shards of earlier versions lack some
    if len(ids) < count:
        yield Damaged(file, f"holds {len(ids)} of {count} images")
    for id_ in ids:
        with snapshot(shard):
            columns = shard.execute(SELECT_IMAGE, (id_,)).fetchone()
            rows = {table: belongings(shard, table, id_) for table in tables}
        if columns:  # None if removed meanwhile
            yield parse(file, columns, rows, codec)


def belongings(shard: sqlite3.Connection, table: str, id_: int) -> list[tuple[Any, ...]]:
    return shard.execute(f"SELECT * FROM {table} WHERE image = ? ORDER BY 1, 2", (id_,)).fetchall()


def parse(
    file: Path, columns: tuple[Any, ...], rows: Mapping[str, list[tuple[Any, ...]]], codec: MapCodec
) -> Whole | Damaged:
    try:
        image = parse_image(columns)
    except ValueError as error:
        return Damaged(named(file, columns), str(error))
    try:
        parse_maps(rows["maps"], image.id, image.map_size, codec.decode)
        if any(checksum(*row[:-1]) != row[-1] for belonging in rows.values() for row in belonging):
            raise ValueError("checksum differs")
    except ValueError as error:
        return Damaged(image.path, str(error))
    return Whole(image, {table: [row[1:-1] for row in belonging] for table, belonging in rows.items()})


def named(file: Path, columns: tuple[Any, ...]) -> Path:
    """Return the path in a damaged row; if it is not usable, the shard's file and the row id."""
    id_, name = columns[:2]
    return Path(os.fsdecode(name)) if isinstance(name, bytes) and name else Path(f"{file}, row {id_}")
