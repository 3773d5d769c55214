"""Connections to a gallery's shards: opened when they are needed, a bounded number of them kept."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from cvnet_engine.engine.contract import Closing
from cvnet_engine.engine.gallery.shards import connect

MOST_KEPT = 64  # each takes three files of the thousand or so that a process may have open


class Connections(Closing):
    """A connection to each of a gallery's shards; any thread may use any of them, several the same one."""

    def __init__(self, readonly: bool = False) -> None:
        self.files: list[Path] = []
        self._readonly = readonly
        self._lock = threading.Lock()
        self._kept: dict[int, sqlite3.Connection] = {}  # the longest unused first
        self._closed = False

    @contextlib.contextmanager
    def use(self, shard: int) -> Iterator[sqlite3.Connection]:
        """
        Raises:
            GalleryError: the shard is not accessible, or none.
            sqlite3.ProgrammingError: the connections have been closed.
        """
        with self._lock:
            if self._closed:
                raise sqlite3.ProgrammingError("the gallery is closed")
            connection = self._kept.pop(shard, None)
        connection = connection or connect(self.files[shard], self._readonly)
        try:
            yield connection
        finally:
            self._keep(shard, connection)

    def _keep(self, shard: int, connection: sqlite3.Connection) -> None:
        with self._lock:
            spare = [self._kept.pop(shard)] if shard in self._kept else []  # another thread's
            self._kept[shard] = connection
            while len(self._kept) > (0 if self._closed else MOST_KEPT):
                spare.append(self._kept.pop(next(iter(self._kept))))
        for unused in spare:
            unused.close()

    def close(self) -> None:
        """Close those that are not in use; the others are closed by whoever uses them."""
        with self._lock:
            self._closed = True
            kept = list(self._kept.values())
            self._kept.clear()
        for connection in kept:
            connection.close()
