"""The gallery being served: a snapshot that is replaced after images have been added."""

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

ID_BYTES = 16  # of the path's SHA-256, in hexadecimal
ID = re.compile(f"[0-9a-f]{{{2 * ID_BYTES}}}")
Signature = list[tuple[str, int, int]]
LayOut = Callable[[Engines, Gallery], Searcher | ShardedSearcher]


def in_one_place(retriever: Engines, gallery: Gallery) -> Searcher:
    """A gallery searched by this process."""
    return Searcher(retriever, gallery, gallery.approximate())


def id_of(path: Path) -> str:
    """An image's id: opaque, and the same in every gallery and snapshot, as long as its path is."""
    return digest(os.fsencode(path)).hex()


def digest(name: bytes) -> bytes:
    return hashlib.sha256(name).digest()[:ID_BYTES]


class Ids:
    """Which row has an id, in 24 bytes an image."""

    def __init__(self, names: Iterable[bytes], count: int) -> None:
        """
        Args:
            names: paths of the rows, `count` of them.
        """
        ids = np.fromiter(map(digest, names), f"V{ID_BYTES}", count).view(f"S{ID_BYTES}")
        self._order = np.argsort(ids, kind="stable")
        self._sorted = ids[self._order]

    def find(self, id_: str) -> int | None:
        """The row of an id, None where it is none's."""
        if not ID.fullmatch(id_):
            return None
        wanted = np.array([bytes.fromhex(id_)], self._sorted.dtype)
        place = int(np.searchsorted(self._sorted, wanted)[0])
        found = place < len(self._sorted) and self._sorted[place] == wanted[0]
        return int(self._order[place]) if found else None


class Snapshot:
    """A gallery as it was when opened, laid out for search. It is closed when nobody holds it any more."""

    def __init__(self, gallery: Gallery, searcher: Searcher | ShardedSearcher) -> None:
        self.gallery, self.searcher = gallery, searcher
        weakref.finalize(self, gallery.close)

    def __len__(self) -> int:
        return len(self.gallery)

    def id(self, row: int) -> str:
        return id_of(self.gallery.paths[row])

    def row(self, id_: str) -> int:
        """
        Raises:
            ProblemError: 404, no image of that id.
        """
        row = self._rows.find(id_)
        if row is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "unknown-image", f"no image {id_!r} in the gallery")
        return row

    def row_of(self, name: str) -> int | None:
        """The row of an id or a path, None where there is neither."""
        row = self._rows.find(name)
        try:
            return self._rows.find(id_of(Path(name))) if row is None else row
        except UnicodeEncodeError:  # JSON can spell what no file is called
            return None

    @cached_property
    def _rows(self) -> Ids:
        return Ids(self.gallery.names(), len(self))

    def shown_path(self, row: int) -> str:
        """A row's path as text."""
        return printable(str(self.gallery.paths[row]))

    @cached_property
    def _shown_paths(self) -> list[str]:
        return [printable(os.fsdecode(name)) for name in self.gallery.names()]

    @cached_property
    def folders(self) -> dict[str, int]:
        """Folders that images are in, with how many, by name."""
        counts: Counter[str] = Counter()
        for folder, images in Counter(os.path.dirname(name) for name in self.gallery.names()).items():  # noqa: PTH120
            counts[printable(os.fsdecode(folder))] += images
        return dict(sorted(counts.items()))

    @cached_property
    def taken(self) -> Array:
        """When each image was taken (n,) datetime64[s], NaT where that is not known."""
        return self.gallery.taken

    def taken_at(self, row: int) -> str | None:
        """When a row was taken, as 2019-06-15T12:00:00 by its camera's clock; None where that is not known."""
        return None if np.isnat(self.taken[row]) else str(self.taken[row])

    @cached_property
    def taken_span(self) -> tuple[str, str] | None:
        """The days of the first and the last dated image, as 2019-06-15; None where none has a date."""
        days = self.taken[~np.isnat(self.taken)].astype("datetime64[D]")
        return (str(days.min()), str(days.max())) if len(days) else None

    def matching(self, where: Filter) -> Array | None:
        """Rows (n,) int64, ascending, that the filter leaves; None for all."""
        return where.rows(lambda: self._shown_paths, lambda: self.taken)

    def read(self, row: int) -> bytes:
        """The row's file, as it was indexed.

        Raises:
            ProblemError: 410, the file has gone or changed since then.
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


class Served:
    """The newest snapshot of a gallery on the disk."""

    def __init__(self, path: Path, wanted: GalleryInfo, retriever: Engines, lay_out: LayOut = in_one_place) -> None:
        """
        Args:
            wanted: what the gallery has to be made with, always.
            lay_out: what makes a gallery searchable.

        Raises:
            GalleryError: no gallery there, made with something else, or damage.
        """
        self._path, self._wanted = path, wanted
        self._lay_out = partial(lay_out, retriever)
        self._signature = signature(path)
        self.snapshot = self._open()

    def _open(self) -> Snapshot:
        gallery = Gallery(self._path)
        try:
            require_equal(gallery.info, self._wanted, self._path)
            return Snapshot(gallery, self._lay_out(gallery))
        except BaseException:
            gallery.close()
            raise

    def refresh(self) -> bool:
        """Open the gallery again where its files have changed; whether they had. Searches under way keep what they had.

        Raises:
            GalleryError: it cannot be read now; what was open still is.
        """
        seen = signature(self._path)
        if seen == self._signature:
            return False
        self.snapshot = self._open()
        self._signature = seen
        return True


def signature(path: Path) -> Signature:
    """Names, sizes and times of the files that a commit changes; a reader leaves an empty log, which says nothing."""
    found = []
    shards = shard_files(path, recorded=0)
    for file in (*shards, *(Path(f"{shard}-wal") for shard in shards), path / ANN):
        with contextlib.suppress(FileNotFoundError):  # a log goes when its writer does
            status = file.stat()
            if status.st_size:
                found.append((file.name, status.st_size, status.st_mtime_ns))
    return found
