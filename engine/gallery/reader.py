"""A gallery opened for reading."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engine.contract import Array, Closing
from engine.errors import GalleryError
from engine.features import Features
from engine.gallery.info import read_info
from engine.gallery.map_codec import decode_map
from engine.gallery.shards import (
    SELECT_IMAGES,
    SELECT_MAPS,
    SELECT_STAMP,
    FileStamp,
    Location,
    connect,
    damage,
    require_undamaged,
    shard_files,
    translated_errors,
)
from engine.geometry import AREA_SCALES, DESCRIPTOR_DIM, Size


class Gallery(Closing):
    """A gallery opened for reading: a snapshot of the images committed by then.

    Rows are numbered 0..n-1 in the order in which the images were indexed.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            GalleryError: no gallery there, another format, or damage.
        """
        self.path = path
        self.info = read_info(path)
        self.paths: list[Path] = []
        self._locations: list[Location] = []
        self._map_sizes: list[Size] = []
        self._shards: list[sqlite3.Connection] = []
        descriptors: list[Array] = []
        try:
            for file in shard_files(path):
                self._shards.append(connect(file, readonly=True))
                descriptors += self._read_images(len(self._shards) - 1)
        except BaseException:
            self.close()
            raise
        self.descriptors: Array = np.stack(descriptors) if descriptors else np.empty((0, DESCRIPTOR_DIM), np.float32)

    def _read_images(self, shard: int) -> Iterator[Array]:
        """Take note of a shard's images and yield their descriptors (2048,) float32."""
        with translated_errors(self.path):
            for *columns, stored in self._shards[shard].execute(SELECT_IMAGES):
                require_undamaged(columns, stored, self.path)
                id_, name, height, width, descriptor = columns
                self.paths.append(Path(os.fsdecode(name)))
                self._locations.append(Location(shard, id_))
                self._map_sizes.append((height, width))
                yield np.frombuffer(descriptor, np.float32)

    def __len__(self) -> int:
        return len(self.paths)

    def map_size(self, row: int) -> Size:
        """Positions (h, w) of the row's full-scale map."""
        return self._map_sizes[row]

    def stamp(self, row: int) -> FileStamp:
        """What the row's file looked like when it was last indexed.

        Raises:
            GalleryError: the image is no longer in the gallery.
        """
        location, path = self._locations[row], self.paths[row]
        with translated_errors(self.path):
            stored = self._shards[location.shard].execute(SELECT_STAMP, (location.id, os.fsencode(path))).fetchone()
        if stored is None:
            raise GalleryError(f"{path}: no longer in the gallery; open the gallery again")
        return FileStamp(*stored)

    def features(self, row: int) -> Features:
        """The row's features, maps as `decode_map` gives them.

        Raises:
            GalleryError: the stored bytes are damaged.
        """
        location = self._locations[row]
        with translated_errors(self.path):
            stored_maps = self._shards[location.shard].execute(SELECT_MAPS, (location.id,)).fetchall()
        if len(stored_maps) != len(AREA_SCALES):
            raise GalleryError(damage(self.paths[row]))
        for *columns, stored in stored_maps:
            require_undamaged(columns, stored, self.paths[row])
        return Features(
            self.descriptors[row],
            tuple(decode_map(data, (c, h, w), self.info.maps) for _, _, c, h, w, data, _ in stored_maps),
        )

    def close(self) -> None:
        for connection in self._shards:
            connection.close()
