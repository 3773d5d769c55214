"""Connections to a gallery's shards: opened on use, a bounded number kept open."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from cvnet_engine.engine.contract import Closing
from cvnet_engine.engine.gallery.shards import connect

MOST_KEPT = 64  # each takes three of the process's file descriptors, often limited to 1024


class Connections(Closing):
    """A thread-safe pool of connections to a gallery's shards; several threads may use the same shard."""

    def __init__(self, readonly: bool = False) -> None:
        self.files: list[Path] = []
        self._readonly = readonly
        self._lock = threading.Lock()
        self._kept: dict[int, sqlite3.Connection] = {}  # least recently used first
        self._closed = False

    @contextlib.contextmanager
    def use(self, shard: int) -> Iterator[sqlite3.Connection]:
        """Lend a connection to a shard, for one thread at a time.

        Raises:
            GalleryError: the shard is not accessible, or not a database.
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
        """Close all connections; those in use are closed when they are returned."""
        with self._lock:
            self._closed = True
            kept = list(self._kept.values())
            self._kept.clear()
        for connection in kept:
            connection.close()
