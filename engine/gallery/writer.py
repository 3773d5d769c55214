"""A gallery opened for adding images, by one process at a time."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.contract import Closing
from engine.errors import GalleryError
from engine.exif import Shot
from engine.features import Features
from engine.gallery.info import FORMAT, INFO, GalleryInfo, read_info, require_equal, write_info
from engine.gallery.map_codec import encode_map
from engine.gallery.shards import (
    DAMAGED,
    SCHEMA,
    SELECT_COUNT,
    SELECT_IMAGES,
    SELECT_WHOLE,
    FileStamp,
    Location,
    checksum,
    connect,
    create_shard,
    has_maps,
    parse_image,
    set_count,
    shard_file,
    shard_files,
    translated_errors,
)
from engine.gallery.shots import put_shot, read_shots

IMAGES_PER_SHARD = 4096  # about 10 GiB at 1024x768 px


class GalleryWriter(Closing):
    """A gallery opened for adding images, by one process at a time.

    `repairs` says in a few words each what was missing; the images concerned are new ones again.
    """

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
        self._damaged: set[Path] = set()
        self._undated: set[Path] = set()
        self.repairs: list[str] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        if (self.path / INFO).exists():
            stored = read_info(self.path)
            require_equal(stored, self.info, self.path)
            self.info = stored
        elif shard_files(self.path, 0):
            raise GalleryError(f"{self.path}: its {INFO} is missing; copy it back, or index into another --gallery")
        else:
            self._write_info()
        for file in shard_files(self.path, self.info.shards):
            if file.exists():
                self._open_shard(file)
            else:
                self.repairs.append(f"{file.name} was missing")
                self._shards.append(create_shard(file))
        if (self.info.format, self.info.shards) != (FORMAT, len(self._shards)):
            self._write_info()
        if self._damaged:
            self.repairs.append(f"maps of {len(self._damaged)} images were damaged")
        self._clear_note()

    def _write_info(self) -> None:
        self.info = replace(self.info, format=FORMAT, shards=len(self._shards))
        with translated_errors(self.path):
            write_info(self.path, self.info)

    def _open_shard(self, file: Path) -> None:
        """Take note of a shard's images and of what is damaged; rows that cannot be trusted are removed."""
        shard, number = connect(file), len(self._shards)
        self._shards.append(shard)
        suspected = (self.path / DAMAGED).exists()
        with translated_errors(file):
            shard.executescript(SCHEMA)  # what a shard of an earlier format lacks
            (count,) = shard.execute(SELECT_COUNT).fetchone()
            whole = {id_ for (id_,) in shard.execute(SELECT_WHOLE)}
            dated = read_shots(shard)
            found, removed = 0, []
            for columns in shard.execute(SELECT_IMAGES):
                try:
                    image = parse_image(columns)
                except ValueError:
                    removed.append(columns[:1])
                    continue
                found += 1
                self._known[image.path] = Location(number, image.id), image.stamp
                if image.id not in whole or (suspected and not has_maps(shard, image, self.info.maps)):
                    self._damaged.add(image.path)
                if image.id not in dated:
                    self._undated.add(image.path)
            if removed or found != count:
                with shard as transaction:
                    transaction.executemany("DELETE FROM maps WHERE image = ?", removed)
                    transaction.executemany("DELETE FROM taken WHERE image = ?", removed)
                    transaction.executemany("DELETE FROM images WHERE id = ?", removed)
                    set_count(transaction, found)
        lost = max(len(removed), count - found)
        if lost:
            self.repairs.append(f"{lost} images of {file.name} were lost")

    def _clear_note(self) -> None:
        if not self._damaged:
            with translated_errors(self.path):
                (self.path / DAMAGED).unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, path: Path) -> bool:
        return path in self._known

    @property
    def damaged(self) -> list[Path]:
        """Images whose maps are missing or damaged, until they are put in anew."""
        return sorted(self._damaged)

    def stamp(self, path: Path) -> FileStamp | None:
        """What the file looked like when it was indexed, None for one that is to be put in (anew)."""
        return self._known[path][1] if path in self._known and path not in self._damaged else None

    def is_dated(self, path: Path) -> bool:
        """Whether the EXIF of an image that is there has been looked at: galleries from before have no dates."""
        return path not in self._undated

    def put(self, path: Path, stamp: FileStamp, features: Features, shot: Shot | None = None) -> None:
        """Add an image, or replace what is known of it; on return it is on the disk.

        Raises:
            GalleryError: features that are no finite numbers, a full disk, or a damaged gallery; what was stored
                before still is.
        """
        if not features.is_finite:
            raise GalleryError(f"{path}: features that are no finite numbers; build the bundle again, in fp32")
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
            put_shot(transaction, location.id, shot)
            if path not in self._known:
                transaction.execute("UPDATE contents SET images = images + 1")
        self._known[path] = location, stamp
        self._note_dated(path, shot)
        if path in self._damaged:
            self._damaged.remove(path)
            self._clear_note()

    def touch(self, path: Path, stamp: FileStamp, shot: Shot | None) -> None:
        """Record a new modification time of a file whose content is as it was, and what its EXIF says."""
        location = self._known[path][0]
        with translated_errors(self.path), self._shards[location.shard] as transaction:
            transaction.execute("UPDATE images SET mtime_ns = ? WHERE id = ?", (stamp.mtime_ns, location.id))
            put_shot(transaction, location.id, shot)
        self._known[path] = location, stamp
        self._note_dated(path, shot)

    def _note_dated(self, path: Path, shot: Shot | None) -> None:
        if shot is None:
            self._undated.add(path)
        else:
            self._undated.discard(path)

    def _next_location(self) -> Location:
        """The next free row, in a new shard where the last one is full."""
        if self._shards:
            (last_id,) = self._shards[-1].execute("SELECT coalesce(max(id), -1) FROM images").fetchone()
            if last_id + 1 < self._images_per_shard:
                return Location(len(self._shards) - 1, last_id + 1)
        self._shards.append(create_shard(shard_file(self.path, len(self._shards))))
        self._write_info()  # before it holds anything, so that it is missed if it goes
        return Location(len(self._shards) - 1, 0)

    def close(self) -> None:
        for connection in self._shards:
            connection.close()
        self._lock.close()
