"""Copies of bundles that share the large files with the original."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

SHARED_BYTES = 4 << 20


def copy_bundle(bundle: Path, folder: Path) -> Path:
    """Copy the small files and link the large ones. The caller may replace those but must not write into them."""
    folder.mkdir()
    for file in bundle.iterdir():
        put = os.symlink if file.stat().st_size > SHARED_BYTES else shutil.copy
        put(file.resolve(), folder / file.name)
    return folder
