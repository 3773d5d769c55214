"""Where what is compiled for this machine is kept: the one folder that the engine writes to unasked."""

from __future__ import annotations

import os
from pathlib import Path

from cvnet_engine.engine.errors import BackendError


def cache_folder() -> Path:
    """
    Raises:
        BackendError: this user has no home.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cvnet-engine"
    except RuntimeError as error:
        raise BackendError("no folder to keep compiled kernels in (no home); set XDG_CACHE_HOME") from error


def private(folder: Path) -> Path:
    """The folder, made where it is missing. Files in it are run, so that nobody else may write there.

    Raises:
        BackendError: somebody else may, or has.
        OSError: it cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise BackendError(
            f"{folder}: others may write there, and files in it are run; expected a folder of this user alone: "
            "remove it, or set XDG_CACHE_HOME to another"
        )
    folder.chmod(0o700)
    return folder
