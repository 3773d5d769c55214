"""Where what is compiled for this machine is kept: the one folder that the engine writes to unasked."""

from __future__ import annotations

import os
from pathlib import Path

from engine.errors import BackendError


def cache_folder() -> Path:
    """
    Raises:
        BackendError: this user has no home.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cvnet-engine"
    except RuntimeError as error:
        raise BackendError("no folder to keep compiled kernels in (no home); set XDG_CACHE_HOME") from error
