"""A gallery opened for reading."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from engine.contract import Array, Closing
from engine.errors import GalleryError, RemovedError
from engine.features import Features
from engine.gallery.info import UNCOUNTED, read_info
from engine.gallery.shards import (
    REPAIR,
    SELECT_COUNT,
    SELECT_IMAGES,
    SELECT_STAMP,
    FileStamp,
    Location,
    connect,
    damage,
    leave_note,
    parse_image,
    read_maps,
    shard_files,
    translated_errors,
)
from engine.gallery.shots import read_shots
from engine.geometry import DESCRIPTOR_DIM, Size


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
            for file in shard_files(path, self.info.shards):
                if not file.exists():
                    raise GalleryError(f"{file}: missing from the gallery; {REPAIR}")
                self._shards.append(connect(file, readonly=True))
                descriptors += self._read_images(file)
        except BaseException:
            self.close()
            raise
        self.descriptors: Array = np.stack(descriptors) if descriptors else np.empty((0, DESCRIPTOR_DIM), np.float32)

    def _read_images(self, file: Path) -> Iterator[Array]:
        """Take note of the last shard's images and yield their descriptors (2048,) float32."""
        shard, before = self._shards[-1], len(self.paths)
        with translated_errors(file):
            # counted first: a writer may be adding more
            count = 0 if self.info.format == UNCOUNTED else shard.execute(SELECT_COUNT).fetchone()[0]
            for columns in shard.execute(SELECT_IMAGES):
                try:
                    image = parse_image(columns)
                except ValueError as error:
                    raise GalleryError(damage(file, error)) from error
                self.paths.append(image.path)
                self._locations.append(Location(len(self._shards) - 1, image.id))
                self._map_sizes.append(image.map_size)
                yield image.descriptor
        found = len(self.paths) - before
        if found < count:
            raise GalleryError(f"{file}: holds {found} of {count} images; {REPAIR}")

    def __len__(self) -> int:
        return len(self.paths)

    def map_size(self, row: int) -> Size:
        """Positions (h, w) of the row's full-scale map."""
        return self._map_sizes[row]

    @property
    def taken(self) -> Array:
        """When each image was taken (n,) datetime64[s], by its camera's clock; NaT where that is not known.

        Raises:
            GalleryError: the shards cannot be read.
        """
        return self._shots[0]

    @property
    def places(self) -> Array:
        """Where each image was taken (n, 2) float64: latitude and longitude in degrees, NaN where that is not known.

        Raises:
            GalleryError: the shards cannot be read.
        """
        return self._shots[1]

    @cached_property
    def _shots(self) -> tuple[Array, Array]:
        taken = np.full(len(self), "NaT", "datetime64[s]")
        places = np.full((len(self), 2), np.nan)
        with translated_errors(self.path):
            stored = [read_shots(shard) for shard in self._shards]
        for row, location in enumerate(self._locations):
            shot = stored[location.shard].get(location.id)
            if shot and shot.taken is not None:
                taken[row] = np.datetime64(shot.taken, "s")
            if shot and shot.place:
                places[row] = shot.place
        return taken, places

    def stamp(self, row: int) -> FileStamp:
        """What the row's file looked like when it was last indexed.

        Raises:
            RemovedError: the image is no longer in the gallery.
        """
        location, path = self._locations[row], self.paths[row]
        with translated_errors(self.path):
            stored = self._shards[location.shard].execute(SELECT_STAMP, (location.id, os.fsencode(path))).fetchone()
        if stored is None:
            raise RemovedError(f"{path}: no longer in the gallery; open the gallery again")
        return FileStamp(*stored)

    def features(self, row: int) -> Features:
        """The row's features, maps as `decode_map` gives them.

        Raises:
            GalleryError: the stored bytes are damaged, or the image is no longer in the gallery.
        """
        location = self._locations[row]
        try:
            with translated_errors(self.path):
                maps = read_maps(self._shards[location.shard], location.id, self._map_sizes[row], self.info.maps)
        except ValueError as error:
            self.stamp(row)  # an image that was removed is not damaged
            leave_note(self.path)
            raise GalleryError(damage(self.paths[row], error)) from error
        self.stamp(row)  # after a removal its place may be another image's
        return Features(self.descriptors[row], maps)

    def close(self) -> None:
        for connection in self._shards:
            connection.close()
