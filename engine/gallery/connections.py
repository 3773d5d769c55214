"""Connections to a gallery's shards: opened when they are needed, a bounded number of them kept."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from engine.contract import Closing
from engine.gallery.shards import connect

MOST_KEPT = 64  # each takes three files of the thousand or so that a process may have open


class Connections(Closing):
    """A connection to each of a gallery's shards; any thread may use any of them, several the same one."""

    def __init__(self, readonly: bool = False) -> None:
        self.files: list[Path] = []
        self._readonly = readonly
        self._lock = threading.Lock()
        self._kept: dict[int, sqlite3.Connection] = {}  # the longest unused first

    @contextlib.contextmanager
    def use(self, shard: int) -> Iterator[sqlite3.Connection]:
        """
        Raises:
            GalleryError: the shard is not accessible, or none.
        """
        with self._lock:
            connection = self._kept.pop(shard, None)
        connection = connection or connect(self.files[shard], self._readonly)
        try:
            yield connection
        finally:
            with self._lock:
                spare = [self._kept.pop(shard)] if shard in self._kept else []  # another thread's
                self._kept[shard] = connection
                if len(self._kept) > MOST_KEPT:
                    spare.append(self._kept.pop(next(iter(self._kept))))
            for connection in spare:
                connection.close()

    def close(self) -> None:
        for connection in self._kept.values():
            connection.close()
        self._kept.clear()
