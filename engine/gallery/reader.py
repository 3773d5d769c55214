"""A gallery opened for reading."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import numpy as np

from cvnet_engine.engine.contract import Array, Closing
from cvnet_engine.engine.errors import CvnetWarning, GalleryError, RemovedError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.ann_file import AnnFile
from cvnet_engine.engine.gallery.columns import Columns, columns_file, open_columns
from cvnet_engine.engine.gallery.connections import Connections
from cvnet_engine.engine.gallery.info import read_info
from cvnet_engine.engine.gallery.learnt_codec import LearntCodec
from cvnet_engine.engine.gallery.map_codec import open_codec
from cvnet_engine.engine.gallery.shard_range import ShardRange, split_shards
from cvnet_engine.engine.gallery.shards import (
    REPAIR,
    SELECT_IMAGES,
    SELECT_STAMP,
    Contents,
    Decode,
    FileStamp,
    damage,
    leave_note,
    parse_image,
    read_contents,
    read_image,
    read_maps,
    shard_files,
    snapshot,
    translated_errors,
)
from cvnet_engine.engine.gallery.shots import read_shots
from cvnet_engine.engine.gallery.table import Paths, Table
from cvnet_engine.engine.geometry import Size, pooled_size
from cvnet_engine.engine.retrieval.blocks import Block, Descriptors
from cvnet_engine.engine.retrieval.inverted_file import Approximate
from cvnet_engine.engine.retrieval.pooling import Pooled, pooled


class Gallery(Closing):
    """A gallery opened for reading: a snapshot of the images committed by then.

    Rows are numbered 0..n-1 in the order in which the images were indexed. Of a shard whose columns are kept,
    descriptors are mapped into memory and rows are looked at when they are used; of any other, every row is read now.

    Attributes:
        paths: of the images, by row.
        descriptors: (n, 2048) float32, unit norm.
    """

    def __init__(self, path: Path, only: ShardRange | None = None) -> None:
        """
        Args:
            only: the shards to open, whose rows are then numbered from 0; None for all.

        Raises:
            GalleryError: no gallery there, another format, or damage.
            ShardsLostError: the gallery no longer has these shards as they were.
        """
        self.path = path
        self.info = read_info(path)
        self._codec = open_codec(self.info.maps, path, self.info.code)
        self._connections = Connections(readonly=True)
        self._contents: list[Contents] = []
        shards: list[Columns] = []
        try:
            files = shard_files(path, self.info.shards)
            for file in files[only.first :][: len(only.shards)] if only else files:
                if not file.exists():
                    raise GalleryError(f"{file}: missing from the gallery; {REPAIR}")
                self._connections.files.append(file)
                shards.append(self._open_shard(file))
            if only:
                shards = only.cut(shards)
        except BaseException:
            self.close()
            raise
        self._table = Table(shards)
        self.paths = Paths(self._table)
        blocks = [Block(columns.descriptors, columns.halves, columns.release) for columns in shards]
        # no method: files in a cycle would stay mapped, and on the disk when replaced, until Python looks for cycles
        self.descriptors = Descriptors(blocks, partial(require_descriptor, self._table, self._connections.files))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """The gallery in a folder, as it is now."""
        return cls(Path(path))

    def _open_shard(self, file: Path) -> Columns:
        """The columns of the last shard."""
        number = len(self._connections.files) - 1
        with self._connections.use(number) as shard, translated_errors(file), snapshot(shard):
            contents = read_contents(shard)
            self._contents.append(contents)
            columns = open_columns(file, contents)
            if columns is None:
                try:
                    columns = Columns.of_images([parse_image(row) for row in shard.execute(SELECT_IMAGES)])
                except ValueError as error:
                    raise GalleryError(damage(file, error)) from error
        if len(columns) < contents.images:
            raise GalleryError(f"{file}: holds {len(columns)} of {contents.images} images; {REPAIR}")
        return columns

    def __len__(self) -> int:
        return len(self._table)

    def shard_ranges(self, count: int) -> list[ShardRange]:
        """All shards as opened, in at most `count` ranges of about as many images each."""
        return split_shards(self.path.absolute(), self._table.shards, count)

    @property
    def shards(self) -> Sequence[Columns]:
        """What is known of the images, shard by shard."""
        return self._table.shards

    def approximate(self) -> Approximate | None:
        """What finds candidates for global search, where the gallery keeps an index for that.

        None where it keeps none; with a note, where that is damaged or no longer the gallery's.
        """
        try:
            kept = AnnFile.load(self.path)
            return kept.opened(self.shards) if kept else None
        except GalleryError as error:
            warnings.warn(str(error), CvnetWarning, stacklevel=2)
            return None

    def names(self) -> Iterator[bytes]:
        """Every path in the file system's own encoding, by row."""
        return self._table.names()

    def map_size(self, row: int) -> Size:
        """Positions (h, w) of the row's full-scale map."""
        return self._table.entry(row).map_size

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
            rows = iter(range(len(self)))
            for number, columns in enumerate(self._table.shards):
                with self._connections.use(number) as shard:
                    shots = read_shots(shard)
                for id_, row in zip(columns.table["id"].tolist(), rows, strict=False):  # takes no row too many
                    shot = shots.get(id_)
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
        entry = self._table.entry(row)
        with self._connections.use(entry.location.shard) as shard, translated_errors(self.path):
            stored = shard.execute(SELECT_STAMP, (entry.location.id, entry.name)).fetchone()
        if stored is None:
            raise RemovedError(f"{self.paths[row]}: no longer in the gallery; open the gallery again")
        return FileStamp(*stored)

    def features(self, row: int) -> Features:
        """The row's features, maps as the gallery's codec gives them.

        Raises:
            RemovedError: the image has gone or changed since the gallery was opened.
            GalleryError: what is stored is damaged.
        """
        return self.decoded(row, self._codec.decode)

    def pooled(self) -> Pooled | PooledCodes:
        """The same images with pooled maps, see `engine.retrieval.pooling.pooled`."""
        return PooledCodes(self, self._codec) if isinstance(self._codec, LearntCodec) else Pooled(self)

    def decoded(self, row: int, decode: Decode) -> Features:
        """`features`, with that in place of maps which their bytes are decoded to."""
        entry, descriptor = self._table.entry(row), self.descriptors[row]
        number = entry.location.shard
        with self._connections.use(number) as shard, translated_errors(self.path), snapshot(shard):
            try:
                image = read_image(shard, entry.location.id)
                if image is None or image.checksum != entry.checksum:
                    raise ValueError("its row is missing, or another one")
                maps = read_maps(shard, image.id, image.map_size, decode)
            except ValueError as error:
                if read_contents(shard) != self._contents[number]:
                    self.stamp(row)  # raises where the image is no longer there
                    raise RemovedError(f"{self.paths[row]}: has changed since; open the gallery again") from error
                leave_note(self.path)
                raise GalleryError(damage(self.paths[row], error)) from error
        return Features(descriptor, maps)

    def close(self) -> None:
        self._connections.close()


@dataclass(frozen=True)
class PooledCodes:
    """A gallery's images with pooled maps: pooled before they are rotated, which has fewer values to take and to make.

    A rotation leaves means and norms what they are, so these are the pooled maps of what is decoded.
    """

    gallery: Gallery
    codec: LearntCodec

    def map_size(self, row: int) -> Size:
        return pooled_size(self.gallery.map_size(row))

    def features(self, row: int) -> Features:
        found = pooled(self.gallery.decoded(row, self.codec.coordinates))
        return replace(found, maps=self.codec.rotate(found.maps))


def require_descriptor(table: Table, files: Sequence[Path], row: int) -> None:
    """Raise GalleryError where a row's descriptor is not the stored one; the file that has it is done without.

    Args:
        files: the shards of the table.
    """
    number, place = table.place(row)
    try:
        table.shards[number].require_descriptor(place)
    except ValueError as error:
        file = columns_file(files[number])
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
        raise GalleryError(
            f"{Paths(table)[row]}: damaged in {file} ({error}); remove that file if it is still there, "
            "and run the same command again: a shard is read without it"
        ) from error
