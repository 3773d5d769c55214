"""EXIF date and place of images as a shard stores them: one row for each image whose EXIF metadata has been read.

Nothing that is computed depends on it: a row that is damaged counts as missing, and the next `index` puts it in anew.
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
    """Of every image of the shard whose EXIF has been looked at, by the image's id; none in a shard from before."""
    if not shard.execute(SELECT_TABLE).fetchone():
        return {}
    return {row[0]: shot for row in shard.execute(SELECT_SHOTS) if (shot := parse_shot(*row))}


def has_shot(shard: sqlite3.Connection, image: int) -> bool:
    """Whether the EXIF of an image of the shard, which has the table, has been looked at."""
    row = shard.execute(f"{SELECT_SHOTS} WHERE image = ?", (image,)).fetchone()
    return bool(row and parse_shot(*row))


def parse_shot(image: Any, taken: Any, latitude: Any, longitude: Any, stored: Any) -> Shot | None:
    """A row of `taken`, None where it is not what was stored."""
    if checksum(image, taken, latitude, longitude) != stored or not is_shot(taken, latitude, longitude):
        return None
    return Shot(taken, None if latitude is None else (latitude, longitude))


def is_shot(taken: object, latitude: object, longitude: object) -> bool:
    """Whether the columns are of the types that `put_shot` stores: a shard of others may hold anything."""
    place = (latitude, longitude)
    return (taken is None or isinstance(taken, int)) and (
        place == (None, None) or all(isinstance(value, float) and math.isfinite(value) for value in place)
    )


def put_shot(transaction: sqlite3.Connection, image: int, shot: Shot) -> None:
    """Store what an image's EXIF says in place of what is known."""
    row = (image, *shot_columns(shot))
    transaction.execute("INSERT OR REPLACE INTO taken VALUES (?, ?, ?, ?, ?)", (*row, checksum(*row)))


def shot_columns(shot: Shot) -> tuple[int | float | None, ...]:
    """What `taken` keeps of an image, but for its id and the checksum."""
    return (shot.taken, *(shot.place or (None, None)))
