"""Atomic writing, reading of regular files only, absolute paths, and the cache folder."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cvnet_engine.engine.errors import BackendError

MOST_TEXT = 1 << 24  # bytes of a manifest or the like
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class IrregularFileError(OSError):
    """A path is not a regular file, or the file is too large; `strerror` says which."""

    def __init__(self, what: str, path: Path) -> None:
        super().__init__(0, what, str(path))


def absolute(path: Path) -> Path:
    """The path of a file or folder from the root, the same from any working directory.

    Links are kept in a path without `..`. In a path with `..` all are resolved, except a link to a file. So the path of
    a file is always the path of its folder, and its name.
    """
    whole = path.absolute()
    if ".." not in whole.parts:
        return whole
    return whole.resolve() if whole.name == ".." or whole.is_dir() else whole.parent.resolve() / whole.name


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a temporary file in the same folder, sync it, and rename it to `path`.

    A path such as /dev/stdout is written to directly. A link stays, and its target is replaced.
    """
    with writing_atomically(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def writing_atomically(path: Path) -> Iterator[BinaryIO]:
    """Like `write_atomically`, for writing in pieces; an error leaves `path` unchanged."""
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            yield stream
        return
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file. The call does not wait on a pipe or device.

    Raises:
        IrregularFileError: it is not a regular file.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        require_regular(path, os.fstat(descriptor))
    except IrregularFileError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def require_regular(path: Path, status: os.stat_result) -> None:
    """Raise IrregularFileError unless this is the status of a regular file."""
    if not stat.S_ISREG(status.st_mode):
        raise IrregularFileError(kind(status.st_mode), path)


def read_text(path: Path) -> str:
    """Return the text of a regular file of at most `MOST_TEXT` bytes.

    Raises:
        OSError: it is not such a file; see `open_regular`.
        UnicodeDecodeError: it is not UTF-8.
    """
    with open_regular(path) as stream:
        data = stream.read(MOST_TEXT + 1)
    if len(data) > MOST_TEXT:
        raise IrregularFileError(f"more than {MOST_TEXT:,} bytes", path)
    return data.decode()


def kind(mode: int) -> str:
    """Name the kind of an irregular file by its `st_mode`."""
    return KINDS.get(stat.S_IFMT(mode), "not a file")


def rename(source: Path, target: Path) -> None:
    """Rename within a folder, replacing the target, and sync the folder to disk."""
    source.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """The folder of kernels compiled for this machine: the only one that the engine writes to by itself.

    Raises:
        BackendError: the user has no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cvnet-engine"
    except RuntimeError as error:
        raise BackendError(
            "no folder for compiled kernels (the user has no home folder); set XDG_CACHE_HOME"
        ) from error


def private_folder(folder: Path) -> Path:
    """Create the folder if it is missing, and return it. Its files are executed, so only this user may write there.

    Raises:
        BackendError: another user owns it or may write there.
        OSError: it cannot be created.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise BackendError(
            f"{folder}: other users may write to this folder, whose files are executed; "
            "expected one that only this user may write to: remove it, or set XDG_CACHE_HOME to another"
        )
    folder.chmod(0o700)
    return folder
