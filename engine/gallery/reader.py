"""Galleries opened for reading."""

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
from cvnet_engine.engine.exif import Shot
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.ann_file import AnnFile
from cvnet_engine.engine.gallery.columns import (
    Columns,
    Paths,
    ShardRange,
    Table,
    columns_file,
    open_columns,
    split_shards,
)
from cvnet_engine.engine.gallery.info import read_info
from cvnet_engine.engine.gallery.map_codecs import CompressedCodec, Decode, open_codec
from cvnet_engine.engine.gallery.shards import (
    REPAIR,
    SELECT_IMAGES,
    SELECT_STAMP,
    Connections,
    Contents,
    FileStamp,
    damage,
    mark_damaged,
    parse_image,
    read_contents,
    read_exif,
    read_image,
    read_maps,
    shard_files,
    snapshot,
)
from cvnet_engine.engine.geometry import Size, pooled_size
from cvnet_engine.engine.retrieval.blocks import Block, Descriptors
from cvnet_engine.engine.retrieval.inverted_file import Approximate
from cvnet_engine.engine.retrieval.pooling import Pooled, pooled


class Gallery(Closing):
    """A gallery opened for reading: a snapshot of the images committed at that moment.

    Rows are numbered 0..n-1 in the order in which the images were indexed. If a shard has an up-to-date columns file,
    its descriptors are memory-mapped and each is checked on use; otherwise all its rows are read while opening.

    Attributes:
        paths: path of each image, by row.
        descriptors: (n, 2048) float32, unit norm.
    """

    def __init__(self, path: Path, only: ShardRange | None = None) -> None:
        """Open the gallery.

        Args:
            only: shards to open, with rows numbered from 0; None for all.

        Raises:
            GalleryError: the folder is not a gallery, has another format, or is damaged.
            ShardsLostError: images of the shards in `only` were removed or changed.
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
        # not a method: a reference cycle would keep the files mapped until the next garbage collection
        self.descriptors = Descriptors(blocks, partial(require_descriptor, self._table, self._connections.files))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open the gallery in a folder."""
        return cls(Path(path))

    def _open_shard(self, file: Path) -> Columns:
        """Return the columns of `file`, the last of the connections' shards."""
        number = len(self._connections.files) - 1
        with self._connections.use(number) as shard, snapshot(shard):
            contents = read_contents(shard)
            self._contents.append(contents)
            columns = open_columns(file, contents)
            if columns is None:
                try:
                    columns = Columns.of_images([parse_image(row) for row in shard.execute(SELECT_IMAGES)])
                except ValueError as error:
                    raise GalleryError(damage(file, error)) from error
        if len(columns) < contents.images:
            raise GalleryError(f"{file}: has {len(columns)} of {contents.images} images; {REPAIR}")
        return columns

    def __len__(self) -> int:
        return len(self._table)

    def shard_ranges(self, count: int) -> list[ShardRange]:
        """Divide the shards into at most `count` ranges with about the same number of images."""
        return split_shards(self.path.absolute(), self._table.shards, count)

    @property
    def shards(self) -> Sequence[Columns]:
        """Columns of each shard."""
        return self._table.shards

    def approximate(self) -> Approximate | None:
        """Return the gallery's approximate index for global search.

        None if there is no index, or if it is damaged or stale, which also issues a CvnetWarning.
        """
        try:
            index = AnnFile.load(self.path)
            return index.opened(self.shards) if index else None
        except GalleryError as error:
            warnings.warn(str(error), CvnetWarning, stacklevel=2)
            return None

    def names(self) -> Iterator[bytes]:
        """Yield the path of each row, in the file system's encoding."""
        return self._table.names()

    def map_size(self, row: int) -> Size:
        """Return the positions (h, w) of a row's full-scale map."""
        return self._table.entry(row).map_size

    @property
    def taken(self) -> Array:
        """Time at which each image was taken by the camera's clock, (n,) datetime64[s]; NaT if unknown.

        Raises:
            GalleryError: the shards cannot be read.
        """
        return self._exif[0]

    @property
    def places(self) -> Array:
        """Latitude and longitude of each image in degrees, (n, 2) float64; NaN if unknown.

        Raises:
            GalleryError: the shards cannot be read.
        """
        return self._exif[1]

    @cached_property
    def _exif(self) -> tuple[Array, Array]:
        found: list[Shot] = []
        for number, columns in enumerate(self._table.shards):
            with self._connections.use(number) as shard:
                by_id = read_exif(shard)
            found += [by_id.get(id_, Shot()) for id_ in columns.table["id"].tolist()]
        taken = ["NaT" if exif.taken is None else np.datetime64(exif.taken, "s") for exif in found]
        places = [exif.place or (np.nan, np.nan) for exif in found]
        return np.array(taken, "datetime64[s]"), np.array(places, np.float64).reshape(-1, 2)

    def stamp(self, row: int) -> FileStamp:
        """Return the stamp of a row's file when it was last indexed.

        Raises:
            RemovedError: the image is no longer in the gallery.
        """
        entry = self._table.entry(row)
        with self._connections.use(entry.location.shard) as shard:
            stored = shard.execute(SELECT_STAMP, (entry.location.id, entry.name)).fetchone()
        if stored is None:
            raise RemovedError(f"{self.paths[row]}: no longer in the gallery; open the gallery again")
        return FileStamp(*stored)

    def features(self, row: int) -> Features:
        """Read the features of a row.

        Raises:
            RemovedError: the image was removed or changed since the gallery was opened.
            GalleryError: the stored features are damaged.
        """
        return self.decoded(row, self._codec.decode)

    def pooled(self) -> Pooled | CoarseCompressed:
        """Return the same images with maps at coarse resolution, see `engine.retrieval.pooling.pooled`."""
        return CoarseCompressed(self, self._codec) if isinstance(self._codec, CompressedCodec) else Pooled(self)

    def decoded(self, row: int, decode: Decode) -> Features:
        """Read the features of a row, with `decode` instead of the gallery's codec; raises as `features`."""
        entry, descriptor = self._table.entry(row), self.descriptors[row]
        number = entry.location.shard
        with self._connections.use(number) as shard, snapshot(shard):
            try:
                image = read_image(shard, entry.location.id)
                if image is None or image.checksum != entry.checksum:
                    raise ValueError("row missing or changed")
                maps = read_maps(shard, image.id, image.map_size, decode)
            except ValueError as error:
                if read_contents(shard) != self._contents[number]:
                    self.stamp(row)  # raises RemovedError if the image was removed
                    raise RemovedError(f"{self.paths[row]}: has changed since; open the gallery again") from error
                mark_damaged(self.path)
                raise GalleryError(damage(self.paths[row], error)) from error
        return Features(descriptor, maps)

    def close(self) -> None:
        self._connections.close()


@dataclass(frozen=True)
class CoarseCompressed:
    """Images of a gallery with compressed maps, at coarse resolution.

    Maps are pooled before the PCA rotation, which is cheaper because there are fewer values. The result is the same
    because a rotation commutes with means and preserves norms.
    """

    gallery: Gallery
    codec: CompressedCodec

    def map_size(self, row: int) -> Size:
        return pooled_size(self.gallery.map_size(row))

    def features(self, row: int) -> Features:
        found = pooled(self.gallery.decoded(row, self.codec.coordinates))
        return replace(found, maps=self.codec.rotate(found.maps))


def require_descriptor(table: Table, files: Sequence[Path], row: int) -> None:
    """Raise GalleryError if a row's memory-mapped descriptor is damaged, and delete that columns file.

    Args:
        files: shards of the table.
    """
    number, place = table.place(row)
    try:
        table.shards[number].require_descriptor(place)
    except ValueError as error:
        file = columns_file(files[number])
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
        raise GalleryError(
            f"{Paths(table)[row]}: damaged in {file} ({error}); run the same command again: it does not need this "
            "file, which has been removed if the folder is writable"
        ) from error
