"""A journal of finished work, from which an interrupted evaluation resumes.

The journal is one SQLite file. A row holds the result of one image or one query. Its key is the SHA-256 of everything
that the result depends on (model, files, crop), so one file serves any number of evaluations. Each row is committed and
synced before the next image or query starts.
"""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from cvnet_engine.engine.bundle import sha256
from cvnet_engine.engine.contract import Array, Closing
from cvnet_engine.engine.errors import DatasetError, one_line
from cvnet_engine.engine.files import require_regular

Facts = tuple[object, ...]  # what a result depends on; must be JSON-serialisable


class Journal(Closing):
    """A store of named arrays, keyed by the facts they were computed from. A context manager; not thread-safe."""

    def __init__(self, file: Path | None) -> None:
        """
        Args:
            file: created if missing; None keeps the journal in memory.

        Raises:
            DatasetError: the file cannot be opened, or is not a journal.
        """
        self._file = file
        try:
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                if file.exists():
                    require_regular(file, file.stat())  # SQLite would block on a pipe
            self._connection = sqlite3.connect(file or ":memory:")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            with self._connection as transaction:
                transaction.execute("CREATE TABLE IF NOT EXISTS work (key TEXT PRIMARY KEY, arrays BLOB NOT NULL)")
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:  # UnicodeDecodeError: message of a damaged file
            raise self._refusal(error) from error

    def get(self, facts: Facts) -> dict[str, Array] | None:
        """Return the arrays that `put` stored under these facts; None if there are none.

        Raises:
            DatasetError: the stored bytes are damaged.
        """
        try:
            row = self._connection.execute("SELECT arrays FROM work WHERE key = ?", (digest(facts),)).fetchone()
            return None if row is None else unpack(row[0])
        except MemoryError:
            raise
        except Exception as error:  # a damaged row can raise nearly any exception
            raise self._refusal(error) from error

    def put(self, facts: Facts, arrays: dict[str, Array]) -> None:
        """Store or replace the arrays; they are on disk when this returns.

        Raises:
            DatasetError: the disk is full, or the file is locked.
        """
        try:
            with self._connection as transaction:
                transaction.execute("INSERT OR REPLACE INTO work VALUES (?, ?)", (digest(facts), pack(arrays)))
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> DatasetError:
        return DatasetError(
            f"{self._file}: journal not usable ({one_line(error)}); check the disk, or delete the file to start again"
        )

    def close(self) -> None:
        self._connection.close()


def content(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, cached by path, size and modification time."""
    status = path.stat()
    return _content(path, status.st_size, status.st_mtime_ns)


@cache
def _content(path: Path, _size: int, _mtime_ns: int) -> str:
    return sha256(path)


def query_facts(identity: str, path: Path, bbx: Sequence[float] | None, database: str) -> Facts:
    """Return what a query's descriptor and pair scores depend on: model, cropped image, and database."""
    return "query", identity, content(path), bbx, database


def image_facts(identity: str, path: Path) -> Facts:
    """Return what the features of a database image depend on."""
    return "image", identity, content(path)


def digest(facts: Facts) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def pack(arrays: dict[str, Array]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def unpack(data: bytes) -> dict[str, Array]:
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:  # the zip format checks a CRC-32 per array
        return dict(stored)
