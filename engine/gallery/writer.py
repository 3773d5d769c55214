"""The writer of a gallery: adds, replaces and removes images; one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cvnet_engine.engine.contract import Closing
from cvnet_engine.engine.errors import GalleryError, GalleryInUseError, counted
from cvnet_engine.engine.exif import Shot
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.columns import Columns, open_columns, write_columns
from cvnet_engine.engine.gallery.info import INFO, GalleryInfo, read_info, require_equal, write_info
from cvnet_engine.engine.gallery.map_codecs import (
    CompressedCodec,
    Fidelity,
    MapCodec,
    Score,
    fit_codec,
    is_compressed,
    open_codec,
)
from cvnet_engine.engine.gallery.shards import (
    CODED_PAGE_BYTES,
    DAMAGED,
    PAGE_BYTES,
    SELECT_COMPLETE,
    SELECT_IMAGES,
    SELECT_STAMP,
    Connections,
    FileStamp,
    ImageRows,
    StoredImage,
    create_shard,
    delete_images,
    delete_orphans,
    exif_row,
    has_exif,
    insert_exif,
    insert_image,
    insert_rows,
    mark_changed,
    mark_damaged,
    parse_image,
    read_contents,
    read_maps,
    set_count,
    shard_file,
    shard_files,
    temporary_files_in,
    translated_errors,
)

IMAGES_PER_SHARD = 4096  # about 10 GiB in float16 at 1024x768 px


class GalleryWriter(Closing):
    """A gallery opened for writing. A file lock allows one writer at a time.

    Attributes:
        info: settings of the gallery.
        codec: encodes feature maps for storage.
        repairs: one short text per problem found while opening, such as a missing shard. The images concerned
            count as not indexed.
    """

    def __init__(self, path: Path, info: GalleryInfo, images_per_shard: int = IMAGES_PER_SHARD) -> None:
        """Open the gallery, or create it.

        Raises:
            GalleryInUseError: another process is writing to it.
            GalleryError: it was created with settings other than `info`, or a file of it is missing.
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
            raise GalleryInUseError(
                f"{path}: another process is writing to this gallery; wait for it, or stop it"
            ) from error
        self._shards = Connections()
        self._known: dict[bytes, tuple[int, int]] = {}  # encoded path -> shard number, row id
        self._damaged: set[Path] = set()
        self._stale: set[int] = set()  # numbers of shards whose columns file is stale
        self.repairs: list[str] = []
        try:
            self._start()
        except BaseException:
            self._release()
            raise

    def _start(self) -> None:
        if (self.path / INFO).exists():
            stored = read_info(self.path)
            require_equal(stored, self.info, self.path)
            self.info = stored
        elif shard_files(self.path, 0):
            raise GalleryError(f"{self.path}: {INFO} is missing; restore it, or index into another --gallery")
        else:
            self._write_info()
        self.codec: MapCodec = open_codec(self.info.maps, self.path, self.info.code)
        suspected = (self.path / DAMAGED).exists()
        for file in shard_files(self.path, self.info.shards):
            if file.exists():
                self._open_shard(file, suspected)
            else:
                self.repairs.append(f"{file.name} was missing")
                self._add_shard(file)
        if self.needs_fit and self._known:
            raise GalleryError(f"{self.path}: {INFO} does not name the map compression; restore it from a backup")
        if self.info.shards != len(self._shards.files):
            self._write_info()
        if self._damaged:
            self.repairs.append(f"damaged maps: {counted(len(self._damaged), 'image')}")
            mark_damaged(self.path)
        self._unmark_repaired()

    def _write_info(self) -> None:
        self.info = replace(self.info, shards=len(self._shards.files))
        with translated_errors(self.path):
            write_info(self.path, self.info)

    def _add_shard(self, file: Path) -> None:
        create_shard(file, CODED_PAGE_BYTES if is_compressed(self.info.maps) else PAGE_BYTES).close()
        self._shards.files.append(file)
        self._stale.add(len(self._shards.files) - 1)

    def _open_shard(self, file: Path, suspected: bool) -> None:
        """Register a shard's images, from its columns file if that is up to date and no damage is suspected.

        Otherwise every row is read and checked.
        """
        number = len(self._shards.files)
        self._shards.files.append(file)
        with self._shards.use(number) as shard:
            contents = read_contents(shard)
            columns = None if suspected else open_columns(file, contents)
            if columns is None:
                self._stale.add(number)
                self._check_rows(number, shard, contents.images, suspected)
            else:
                names, ids = columns.each_name(), columns.table["id"].tolist()
                self._known.update((name, (number, id_)) for name, id_ in zip(names, ids, strict=True))

    def _check_rows(self, number: int, shard: sqlite3.Connection, count: int, check_maps: bool) -> None:
        """Register a shard's images and the damaged ones; delete rows that fail their checksum."""
        complete = {id_ for (id_,) in shard.execute(SELECT_COMPLETE)}
        found, removed = 0, []
        for columns in shard.execute(SELECT_IMAGES):
            try:
                image = parse_image(columns)
            except ValueError:
                removed.append(columns[0])
                continue
            found += 1
            self._known[image.name] = number, image.id
            if image.id not in complete or (check_maps and not self._has_maps(shard, image)):
                self._damaged.add(image.path)
        if removed or found != count:
            with shard:
                delete_images(shard, removed)
                delete_orphans(shard)
                set_count(shard, found)
                mark_changed(shard)
        if lost := max(len(removed), count - found, 0):
            self.repairs.append(f"lost from {self._shards.files[number].name}: {counted(lost, 'image')}")

    def _has_maps(self, shard: sqlite3.Connection, image: StoredImage) -> bool:
        """Return True if all maps of an image are present and undamaged."""
        try:
            read_maps(shard, image.id, image.map_size, self.codec.decode)
        except ValueError:
            return False
        return True

    def _unmark_repaired(self) -> None:
        if not self._damaged:
            with translated_errors(self.path):
                (self.path / DAMAGED).unlink(missing_ok=True)

    @classmethod
    def reopen(cls, path: Path) -> GalleryWriter:
        """Open an existing gallery with its own settings.

        Raises:
            GalleryInUseError: another process is writing to it.
            GalleryError: the folder is not a gallery.
        """
        return cls(path, read_info(path))

    @property
    def paths(self) -> list[Path]:
        """Paths of all images, in the order of the rows."""
        return [Path(os.fsdecode(name)) for name in self._known]

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, path: Path) -> bool:
        return os.fsencode(path) in self._known

    @property
    def damaged(self) -> list[Path]:
        """Images whose maps are missing or damaged; an image leaves the list when it is stored again."""
        return sorted(self._damaged)

    def stamp(self, path: Path) -> FileStamp | None:
        """Return the file's stamp at indexing time; None if the image is not stored or is damaged."""
        name = os.fsencode(path)
        if name not in self._known or path in self._damaged:
            return None
        number, id_ = self._known[name]
        with self._shards.use(number) as shard:
            stored = shard.execute(SELECT_STAMP, (id_, name)).fetchone()
        return FileStamp(*stored) if stored else None

    @property
    def needs_fit(self) -> bool:
        """True if the map compression must be fitted before the first image can be stored."""
        return is_compressed(self.info.maps) and not self.info.code

    def fit(self, first: Sequence[Features], score: Score | None = None) -> None:
        """Fit the compression of the gallery's maps to its first images and record its fidelity."""
        codec = fit_codec(self.info.maps, first)
        self.use_codec(codec, Fidelity.of(codec, first, score))

    def use_codec(self, codec: CompressedCodec, fidelity: Fidelity | None) -> None:
        """Use a fitted codec for the maps of all images, and save it in the gallery."""
        self.codec = codec
        with translated_errors(self.path):
            code = codec.save(self.path)
        self.info = replace(self.info, code=code, fidelity=fidelity)
        self._write_info()

    def has_exif(self, path: Path) -> bool:
        """Return True if the EXIF metadata of a stored image is stored, too."""
        number, id_ = self._known[os.fsencode(path)]
        with self._shards.use(number) as shard:
            return has_exif(shard, id_)

    def put(self, path: Path, stamp: FileStamp, features: Features, exif: Shot | None = None) -> None:
        """Add or replace an image. It is synced to disk on return.

        Raises:
            GalleryError: the features are not finite, the disk is full or the gallery is damaged. What was stored
                before is unchanged.
        """
        if not features.is_finite:
            raise GalleryError(f"{path}: features are not finite; build the bundle again with --precision fp32")
        maps = [(scale, *array.shape, self.codec.encode(scale, array)) for scale, array in enumerate(features.maps)]
        image = StoredImage(0, path, features.map_size, features.descriptor.astype(np.float32), stamp)
        self.store(image, {"maps": maps, "taken": [exif_row(exif)] if exif else []})

    def store(self, image: StoredImage, rows: ImageRows) -> None:
        """Add or replace an image from rows encoded for this gallery; `image.id` is ignored.

        Raises:
            GalleryError: the disk is full or the gallery is damaged.
        """
        path, name = image.path, image.name
        number, id_ = self._known.get(name) or self._next_place()
        with self._shards.use(number) as shard, shard:
            insert_image(shard, replace(image, id=id_))
            insert_rows(shard, id_, rows)
            if name not in self._known:
                shard.execute("UPDATE contents SET images = images + 1")
            mark_changed(shard)
        self._known[name] = number, id_
        self._stale.add(number)
        if path in self._damaged:
            self._damaged.remove(path)
            self._unmark_repaired()

    def remove(self, paths: Iterable[Path], done: Callable[[int], None] = lambda _: None) -> None:
        """Remove images, in one transaction per shard; `done(n)` is called after each commit with its number of images.

        New images reuse the space; `compact` returns it to the file system.
        """
        by_shard: dict[int, list[Path]] = defaultdict(list)
        for path in paths:
            by_shard[self._known[os.fsencode(path)][0]].append(path)
        for number, removed in by_shard.items():
            ids = [self._known[os.fsencode(path)][1] for path in removed]
            with self._shards.use(number) as shard, shard:
                delete_images(shard, ids)
                shard.execute("UPDATE contents SET images = images - ?", (len(ids),))
                mark_changed(shard)
            self._stale.add(number)
            for path in removed:
                del self._known[os.fsencode(path)]
                self._damaged.discard(path)
            done(len(removed))
        self._unmark_repaired()

    def compact(self, done: Callable[[int], None] = lambda _: None) -> None:
        """Return the space of removed images to the file system, shard by shard; `done(1)` is called after each.

        Each shard is rewritten in one transaction, which temporarily needs twice its size on the gallery's disk.
        Readers are not blocked, and a kill leaves the shard unchanged.

        Raises:
            GalleryError: the disk is full.
        """
        with translated_errors(self.path), temporary_files_in(self.path):
            for number in range(len(self._shards.files)):
                with self._shards.use(number) as shard:
                    if shard.execute("PRAGMA freelist_count").fetchone()[0]:
                        shard.execute("VACUUM")
                        shard.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                done(1)

    def touch(self, path: Path, stamp: FileStamp, exif: Shot | None = None) -> None:
        """Record the new modification time of a file with unchanged content, and its EXIF metadata if given."""
        name = os.fsencode(path)
        number, id_ = self._known[name]
        with self._shards.use(number) as shard, shard:
            shard.execute("UPDATE images SET mtime_ns = ? WHERE id = ?", (stamp.mtime_ns, id_))
            if exif:
                insert_exif(shard, id_, exif)

    def _next_place(self) -> tuple[int, int]:
        """Return shard number and row id for a new image; create a shard if the last one is full."""
        last = len(self._shards.files) - 1
        if last >= 0:
            with self._shards.use(last) as shard:
                (last_id,) = shard.execute("SELECT coalesce(max(id), -1) FROM images").fetchone()
            if last_id + 1 < self._images_per_shard:
                return last, last_id + 1
        self._write_columns()
        self._add_shard(shard_file(self.path, last + 1))
        self._write_info()  # before it holds images, so that its loss is noticed
        return last + 1, 0

    def _write_columns(self) -> None:
        """Write the columns files of changed shards. Errors are ignored because these files are only caches."""
        for number in sorted(self._stale):
            with contextlib.suppress(GalleryError, OSError, ValueError), self._shards.use(number) as shard:
                state = read_contents(shard).state
                images = [parse_image(columns) for columns in shard.execute(SELECT_IMAGES)]
                write_columns(self._shards.files[number], state, Columns.of_images(images))
        self._stale.clear()

    def close(self) -> None:
        self._write_columns()
        self._release()

    def _release(self) -> None:
        self._shards.close()
        self._lock.close()
