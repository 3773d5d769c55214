"""Snapshots of the served gallery; a new one replaces the current one when the gallery's files change."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from http import HTTPStatus
from pathlib import Path

import numpy as np

from cvnet_engine.console import printable
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import ImageError
from cvnet_engine.engine.gallery.ann_file import ANN
from cvnet_engine.engine.gallery.filter import Filter
from cvnet_engine.engine.gallery.info import GalleryInfo, require_equal
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import shard_files
from cvnet_engine.engine.images import open_image
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.engine.retrieval.searcher import Searcher
from cvnet_engine.engine.retrieval.sharded import ShardedSearcher
from cvnet_engine.server.problems import ProblemError, gone

ID_BYTES = 16  # of the path's SHA-256, written in hexadecimal
ID = re.compile(f"[0-9a-f]{{{2 * ID_BYTES}}}")
FileStates = list[tuple[str, int, int]]
LayOut = Callable[[Engines, Gallery], Searcher | ShardedSearcher]


def in_one_place(engines: Engines, gallery: Gallery) -> Searcher:
    """Return a searcher of the gallery in this process."""
    return Searcher(engines, gallery, gallery.approximate())


def id_of(path: Path) -> str:
    """Return an image's id, a hash of its path; it is the same in every gallery and snapshot."""
    return digest(os.fsencode(path)).hex()


def digest(name: bytes) -> bytes:
    return hashlib.sha256(name).digest()[:ID_BYTES]


class Ids:
    """Index from image id to row, 24 bytes per image."""

    def __init__(self, names: Iterable[bytes], count: int) -> None:
        """
        Args:
            names: the rows' paths as bytes.
            count: number of rows.
        """
        ids = np.fromiter(map(digest, names), f"V{ID_BYTES}", count).view(f"S{ID_BYTES}")
        self._order = np.argsort(ids, kind="stable")
        self._sorted = ids[self._order]

    def find(self, id_: str) -> int | None:
        """Return the row of an id; None if it is unknown."""
        if not ID.fullmatch(id_):
            return None
        key = np.array([bytes.fromhex(id_)], self._sorted.dtype)
        at = int(np.searchsorted(self._sorted, key)[0])
        found = at < len(self._sorted) and self._sorted[at] == key[0]
        return int(self._order[at]) if found else None


class Snapshot:
    """A gallery as it was when opened, and its searcher. Garbage collection of the snapshot closes the gallery."""

    def __init__(self, gallery: Gallery, searcher: Searcher | ShardedSearcher) -> None:
        self.gallery, self.searcher = gallery, searcher
        weakref.finalize(self, gallery.close)

    def __len__(self) -> int:
        return len(self.gallery)

    def id(self, row: int) -> str:
        return id_of(self.gallery.paths[row])

    def row(self, id_: str) -> int:
        """Return the row of an id.

        Raises:
            ProblemError: 404, unknown id.
        """
        row = self._rows.find(id_)
        if row is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "unknown-image", f"no image {id_!r} in the gallery")
        return row

    def row_of(self, name: str) -> int | None:
        """Return the row of an id or a path; None if there is none."""
        row = self._rows.find(name)
        try:
            return self._rows.find(id_of(Path(name))) if row is None else row
        except UnicodeEncodeError:  # JSON strings can hold surrogates that no path has
            return None

    @cached_property
    def _rows(self) -> Ids:
        return Ids(self.gallery.names(), len(self))

    def shown_path(self, row: int) -> str:
        """Return a row's path as printable text."""
        return printable(str(self.gallery.paths[row]))

    @cached_property
    def _shown_paths(self) -> list[str]:
        return [printable(os.fsdecode(name)) for name in self.gallery.names()]

    @cached_property
    def folders(self) -> dict[str, int]:
        """Number of images directly in each folder, by folder name, sorted."""
        counts: Counter[str] = Counter()
        for folder, images in Counter(os.path.dirname(name) for name in self.gallery.names()).items():  # noqa: PTH120
            counts[printable(os.fsdecode(folder))] += images
        return dict(sorted(counts.items()))

    @cached_property
    def taken(self) -> Array:
        """Time at which each image was taken, (n,) datetime64[s]; NaT if unknown."""
        return self.gallery.taken

    def taken_at(self, row: int) -> str | None:
        """Return when a row's image was taken by its camera's clock, as 2019-06-15T12:00:00; None if unknown."""
        return None if np.isnat(self.taken[row]) else str(self.taken[row])

    @cached_property
    def taken_span(self) -> tuple[str, str] | None:
        """Dates of the oldest and the newest image, as 2019-06-15; None if no image has a date."""
        days = self.taken[~np.isnat(self.taken)].astype("datetime64[D]")
        return (str(days.min()), str(days.max())) if len(days) else None

    def matching(self, where: Filter) -> Array | None:
        """Return the rows (n,) int64, ascending, that match the filter; None for all."""
        return where.rows(lambda: self._shown_paths, lambda: self.taken)

    def read(self, row: int) -> bytes:
        """Return the bytes of a row's file.

        Raises:
            ProblemError: 410, the file is missing, unreadable or has changed since it was indexed.
        """
        path, stamp = self.gallery.paths[row], self.gallery.stamp(row)
        try:
            with open_image(path) as stream:
                status = os.fstat(stream.fileno())
                data = stream.read(stamp.size + 1) if status.st_size == stamp.size else b""
        except (ImageError, OSError) as error:
            raise gone(f"{path}: {error}") from error
        if len(data) != stamp.size or hashlib.sha256(data).hexdigest() != stamp.digest:
            raise gone(f"{path}: has changed since it was indexed; run 'cvnet-engine index' again")
        return data


class ServedGallery:
    """The newest snapshot of a gallery on disk."""

    def __init__(self, path: Path, expected: GalleryInfo, engines: Engines, lay_out: LayOut = in_one_place) -> None:
        """
        Args:
            expected: model and settings that the gallery must have been built with, checked at each refresh.
            lay_out: function that makes a gallery searchable.

        Raises:
            GalleryError: the gallery is missing, damaged, or built with another model or other settings.
        """
        self._path, self._expected = path, expected
        self._lay_out = partial(lay_out, engines)
        self._file_states = file_states(path)
        self.snapshot = self._open()

    def _open(self) -> Snapshot:
        gallery = Gallery(self._path)
        try:
            require_equal(gallery.info, self._expected, self._path)
            return Snapshot(gallery, self._lay_out(gallery))
        except BaseException:
            gallery.close()
            raise

    def refresh(self) -> bool:
        """Open the gallery again if its files have changed; return True if so. Running searches keep their snapshot.

        Raises:
            GalleryError: the gallery cannot be opened; the current snapshot stays in use.
        """
        seen = file_states(self._path)
        if seen == self._file_states:
            return False
        self.snapshot = self._open()
        self._file_states = seen
        return True


def file_states(path: Path) -> FileStates:
    """Return names, sizes and times of the files that a commit changes.

    Empty files are ignored, because a reader can leave an empty write-ahead log.
    """
    found = []
    shards = shard_files(path, recorded=0)
    for file in (*shards, *(Path(f"{shard}-wal") for shard in shards), path / ANN):
        with contextlib.suppress(FileNotFoundError):  # a log is deleted when its writer closes
            status = file.stat()
            if status.st_size:
                found.append((file.name, status.st_size, status.st_mtime_ns))
    return found
