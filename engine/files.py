"""Files and folders that are whole or not there at all, and go by one name."""

from __future__ import annotations

import os
from pathlib import Path


def absolute(path: Path) -> Path:
    """The path from the root, so that a file goes by one name wherever it is named from. Links are kept."""
    folder = path.absolute().parent
    return (folder.resolve() if ".." in folder.parts else folder) / path.name


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name beside its place, sync it, and rename it there.

    What is no plain file (/dev/stdout) is written to as it is; a link stays, and its target is replaced.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            stream.write(data)
        return
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def rename(source: Path, target: Path) -> None:
    """Rename within a folder, replacing the target, and wait until the disk knows."""
    source.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Wait until a file's content or a folder's list of names is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
