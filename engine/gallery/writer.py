"""A gallery opened for adding images, by one process at a time."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

import numpy as np

from engine.contract import Closing
from engine.errors import GalleryError
from engine.features import Features
from engine.gallery.info import INFO, GalleryInfo, read_info, require_equal, write_info
from engine.gallery.map_codec import encode_map
from engine.gallery.shards import (
    SELECT_STAMPS,
    FileStamp,
    Location,
    checksum,
    connect,
    create_shard,
    shard_files,
    translated_errors,
)

IMAGES_PER_SHARD = 4096  # about 10 GiB at 1024x768 px


class GalleryWriter(Closing):
    """A gallery opened for adding images, by one process at a time."""

    def __init__(self, path: Path, info: GalleryInfo, images_per_shard: int = IMAGES_PER_SHARD) -> None:
        """Open the gallery, or start it.

        Raises:
            GalleryError: another writer holds it, or it was made with something else than `info`.
        """
        self.path, self.info = path, info
        self._images_per_shard = images_per_shard
        with translated_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / "writer.lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise GalleryError(
                f"{path}: another process is writing to this gallery; wait for it, or stop it"
            ) from error
        self._shards: list[sqlite3.Connection] = []
        self._known: dict[Path, tuple[Location, FileStamp]] = {}
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        if (self.path / INFO).exists():
            require_equal(read_info(self.path), self.info, self.path)
        else:
            with translated_errors(self.path):
                write_info(self.path, self.info)
        for shard, file in enumerate(shard_files(self.path)):
            self._shards.append(connect(file))
            with translated_errors(self.path):
                for id_, name, *stamp in self._shards[shard].execute(SELECT_STAMPS):
                    self._known[Path(os.fsdecode(name))] = Location(shard, id_), FileStamp(*stamp)

    def __len__(self) -> int:
        return len(self._known)

    def stamp(self, path: Path) -> FileStamp | None:
        """What the file looked like when it was indexed, None for a new one."""
        return self._known[path][1] if path in self._known else None

    def put(self, path: Path, stamp: FileStamp, features: Features) -> None:
        """Add an image, or replace what is known of it; on return it is on the disk.

        Raises:
            GalleryError: the disk is full, or the gallery damaged; what was stored before still is.
        """
        name, descriptor = os.fsencode(path), features.descriptor.astype(np.float32).tobytes()
        with translated_errors(self.path):
            location = self._known[path][0] if path in self._known else self._next_location()
        with translated_errors(self.path), self._shards[location.shard] as transaction:
            transaction.execute("DELETE FROM maps WHERE image = ?", (location.id,))
            transaction.execute(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    location.id,
                    name,
                    stamp.size,
                    stamp.mtime_ns,
                    stamp.digest,
                    *features.map_size,
                    descriptor,
                    checksum(location.id, name, *features.map_size, descriptor),
                ),
            )
            for scale, array in enumerate(features.maps):
                row = (location.id, scale, *array.shape, encode_map(array, self.info.maps))
                transaction.execute("INSERT INTO maps VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, checksum(*row)))
        self._known[path] = location, stamp

    def touch(self, path: Path, stamp: FileStamp) -> None:
        """Record a new modification time of a file whose content is as it was."""
        location = self._known[path][0]
        with translated_errors(self.path), self._shards[location.shard] as transaction:
            transaction.execute("UPDATE images SET mtime_ns = ? WHERE id = ?", (stamp.mtime_ns, location.id))
        self._known[path] = location, stamp

    def _next_location(self) -> Location:
        """The next free row, in a new shard where the last one is full."""
        if self._shards:
            (last_id,) = self._shards[-1].execute("SELECT coalesce(max(id), -1) FROM images").fetchone()
            if last_id + 1 < self._images_per_shard:
                return Location(len(self._shards) - 1, last_id + 1)
        self._shards.append(create_shard(self.path / f"shard-{len(self._shards):05d}.sqlite"))
        return Location(len(self._shards) - 1, 0)

    def close(self) -> None:
        for connection in self._shards:
            connection.close()
        self._lock.close()
