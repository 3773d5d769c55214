"""When and where images were taken, as a shard keeps it: a row for each image whose EXIF has been looked at.

Nothing that is computed depends on it: a row that is damaged counts as missing, and the next `index` puts it in anew.
"""

from __future__ import annotations

import math
import sqlite3

from engine.exif import Shot
from engine.gallery.shards import checksum

SELECT_TABLE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'taken'"
SELECT_SHOTS = "SELECT image, taken, latitude, longitude, checksum FROM taken"


def read_shots(shard: sqlite3.Connection) -> dict[int, Shot]:
    """Of every image of the shard whose EXIF has been looked at, by the image's id; none in a shard from before."""
    if not shard.execute(SELECT_TABLE).fetchone():
        return {}
    return {
        image: Shot(taken, None if latitude is None else (latitude, longitude))
        for image, taken, latitude, longitude, stored in shard.execute(SELECT_SHOTS)
        if checksum(image, taken, latitude, longitude) == stored and is_shot(taken, latitude, longitude)
    }


def is_shot(taken: object, latitude: object, longitude: object) -> bool:
    """Whether the columns are of the types that `put_shot` stores: a shard of others may hold anything."""
    place = (latitude, longitude)
    return (taken is None or isinstance(taken, int)) and (
        place == (None, None) or all(isinstance(value, float) and math.isfinite(value) for value in place)
    )


def put_shot(transaction: sqlite3.Connection, image: int, shot: Shot | None) -> None:
    """Store what an image's EXIF says in place of what is known; None for an image whose EXIF was not looked at."""
    transaction.execute("DELETE FROM taken WHERE image = ?", (image,))
    if shot is not None:
        row = (image, shot.taken, *(shot.place or (None, None)))
        transaction.execute("INSERT INTO taken VALUES (?, ?, ?, ?, ?)", (*row, checksum(*row)))
