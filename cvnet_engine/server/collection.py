"""The gallery being served: a snapshot that is opened anew when images have been added to it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import weakref
from collections import Counter
from functools import cached_property
from http import HTTPStatus
from pathlib import Path

import numpy as np

from cvnet_engine.console import printable
from cvnet_engine.server.problems import ProblemError, gone
from engine.contract import Array
from engine.errors import GalleryError, ImageError
from engine.gallery.dates import taken_within
from engine.gallery.info import GalleryInfo, require_equal
from engine.gallery.reader import Gallery
from engine.gallery.shards import shard_files
from engine.images import open_image
from engine.retrieval.retriever import Retriever
from engine.retrieval.searcher import Searcher

ID_DIGITS = 32  # 128 bits of the path's SHA-256, in hexadecimal
Signature = list[tuple[str, int, int]]


def id_of(path: Path) -> str:
    """An image's id: opaque, and the same in every gallery and snapshot, as long as its path is."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:ID_DIGITS]


class Snapshot:
    """A gallery as it was when opened, laid out for search. It is closed when nobody holds it any more."""

    def __init__(self, gallery: Gallery, retriever: Retriever) -> None:
        self.gallery = gallery
        self.searcher = Searcher(retriever, gallery)
        self.ids = [id_of(path) for path in gallery.paths]
        self.taken = gallery.taken  # (n,) datetime64[s], NaT where that is not known
        self._rows = {id_: row for row, id_ in enumerate(self.ids)}
        weakref.finalize(self, gallery.close)

    def __len__(self) -> int:
        return len(self.gallery)

    def row(self, id_: str) -> int:
        """
        Raises:
            ProblemError: 404, no image of that id.
        """
        if id_ not in self._rows:
            raise ProblemError(HTTPStatus.NOT_FOUND, "unknown-image", f"no image {id_!r} in the gallery")
        return self._rows[id_]

    def row_of(self, name: str) -> int | None:
        """The row of an id or a path, None where there is neither."""
        try:
            return self._rows.get(name, self._rows.get(id_of(Path(name))))
        except UnicodeEncodeError:  # JSON can spell what no file is called
            return None

    @cached_property
    def shown_paths(self) -> list[str]:
        """Every path as text."""
        return [printable(str(path)) for path in self.gallery.paths]

    @cached_property
    def _folded_paths(self) -> list[str]:
        return [path.casefold() for path in self.shown_paths]

    @cached_property
    def folders(self) -> dict[str, int]:
        """Folders that images are in, with how many, by name."""
        return dict(sorted(Counter(os.path.dirname(path) for path in self.shown_paths).items()))  # noqa: PTH120

    def taken_at(self, row: int) -> str | None:
        """When a row was taken, as 2019-06-15T12:00:00 by its camera's clock; None where that is not known."""
        return None if np.isnat(self.taken[row]) else str(self.taken[row])

    @cached_property
    def taken_span(self) -> tuple[str, str] | None:
        """The days of the first and the last dated image, as 2019-06-15; None where none has a date."""
        days = self.taken[~np.isnat(self.taken)].astype("datetime64[D]")
        return (str(days.min()), str(days.max())) if len(days) else None

    def matching(self, name: str = "", folder: str = "", taken_from: str = "", taken_to: str = "") -> Array | None:
        """Rows (n,) int64, ascending, whose path contains `name` in any case and is below `folder`; None for all.

        Args:
            taken_from, taken_to: days, months or years, both included; see `taken_within`.
        """
        if not (name or folder or taken_from or taken_to):
            return None
        matches = np.ones(len(self), bool)
        if name:
            part = name.casefold()
            matches &= [part in path for path in self._folded_paths]
        if folder:
            below = folder.rstrip("/") + "/"
            matches &= [path.startswith(below) for path in self.shown_paths]
        if taken_from or taken_to:
            matches &= taken_within(self.taken, taken_from, taken_to)
        return np.flatnonzero(matches)

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

    def __init__(self, path: Path, wanted: GalleryInfo, retriever: Retriever) -> None:
        """
        Args:
            wanted: what the gallery has to be made with, always.

        Raises:
            GalleryError: no gallery there, made with something else, or damage.
        """
        self._path, self._wanted, self._retriever = path, wanted, retriever
        self._signature = signature(path)
        self.snapshot = self._open()

    def _open(self) -> Snapshot:
        gallery = Gallery(self._path)
        try:
            require_equal(gallery.info, self._wanted, self._path)
        except GalleryError:
            gallery.close()
            raise
        return Snapshot(gallery, self._retriever)

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
    for shard in shard_files(path, recorded=0):
        for file in (shard, Path(f"{shard}-wal")):
            with contextlib.suppress(FileNotFoundError):  # a log goes when its writer does
                status = file.stat()
                if status.st_size:
                    found.append((file.name, status.st_size, status.st_mtime_ns))
    return found
