"""EXIF date and place of images as a shard stores them: one row for each image whose EXIF metadata has been read.

A damaged row counts as missing, and the next `index` run reads the EXIF metadata of that image again.
"""

from __future__ import annotations

import math
import sqlite3
from typing import Any

from cvnet_engine.engine.exif import Shot
from cvnet_engine.engine.gallery.shards import checksum

SELECT_TABLE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'taken'"
SELECT_SHOTS = "SELECT image, taken, latitude, longitude, checksum FROM taken"


def read_shots(shard: sqlite3.Connection) -> dict[int, Shot]:
    """Read date and place of all images of a shard, by image id; empty for a shard from an earlier version."""
    if not shard.execute(SELECT_TABLE).fetchone():
        return {}
    return {row[0]: shot for row in shard.execute(SELECT_SHOTS) if (shot := parse_shot(*row))}


def has_shot(shard: sqlite3.Connection, image: int) -> bool:
    """Return True if the EXIF metadata of an image has been stored; the shard must have table `taken`."""
    row = shard.execute(f"{SELECT_SHOTS} WHERE image = ?", (image,)).fetchone()
    return bool(row and parse_shot(*row))


def parse_shot(image: Any, taken: Any, latitude: Any, longitude: Any, stored: Any) -> Shot | None:
    """Parse a row of `taken`; return None if it is damaged."""
    if checksum(image, taken, latitude, longitude) != stored or not is_shot(taken, latitude, longitude):
        return None
    return Shot(taken, None if latitude is None else (latitude, longitude))


def is_shot(taken: object, latitude: object, longitude: object) -> bool:
    """Return True if the columns have the types that `put_shot` stores; a foreign shard may contain anything."""
    place = (latitude, longitude)
    return (taken is None or isinstance(taken, int)) and (
        place == (None, None) or all(isinstance(value, float) and math.isfinite(value) for value in place)
    )


def put_shot(transaction: sqlite3.Connection, image: int, shot: Shot) -> None:
    """Store the date and place of an image, replacing earlier ones."""
    row = (image, *shot_columns(shot))
    transaction.execute("INSERT OR REPLACE INTO taken VALUES (?, ?, ?, ?, ?)", (*row, checksum(*row)))


def shot_columns(shot: Shot) -> tuple[int | float | None, ...]:
    """Return the columns of `taken` without image id and checksum."""
    return (shot.taken, *(shot.place or (None, None)))
