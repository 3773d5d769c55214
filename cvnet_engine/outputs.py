"""Checks of output files before any work: they can be written, and overwrite nothing that is read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from cvnet_engine.engine.errors import CvnetError

STANDARD_OUTPUT = Path("-")


@dataclass(frozen=True)
class Files:
    """Files that a command reads and writes; None for options that were not given.

    Attributes:
        written: option -> the file or folder that it names.
        read: files and folders that are read.
        kept: bundles and galleries; no results may be written into them.
    """

    written: Mapping[str, Path | None]
    read: Sequence[Path | None] = ()
    kept: Sequence[Path | None] = ()

    def require_apart(self) -> None:
        """
        Raises:
            CvnetError: something to be written is, holds or is within something else; see `read` and `kept`.
        """
        outputs = {option: path for option, path in self.written.items() if path}
        for (one, path), (other, second) in combinations(outputs.items(), 2):
            if within(path, second) or within(second, path):
                raise CvnetError(f"{one} {path} and {other} {second} are in each other's place; give each its own")
        for option, path in outputs.items():
            if path == STANDARD_OUTPUT:
                continue
            for source in filter(None, self.read):
                if within(source, path):
                    raise CvnetError(
                        f"{option} {path}: would take the place of {source}, which is read; choose another"
                    )
            for folder in filter(None, self.kept):
                if within(path, folder):
                    raise CvnetError(
                        f"{option} {path}: is within {folder}, a bundle or gallery; choose a file outside it"
                    )


def within(path: Path, place: Path) -> bool:
    """True if a path is a place or lies within it, after links are resolved."""
    try:
        if path.samefile(place):
            return True
    except OSError:  # one of them is not there yet
        pass
    real, real_place = Path(os.path.realpath(path)), Path(os.path.realpath(place))
    return real_place in (real, *real.parents)


def require_writable(file: Path | None) -> Path | None:
    """Return the file, which may be None, after checking that it can be written.

    Raises:
        CvnetError: its folder does not exist, or the file is a folder.
    """
    if file and (file.is_dir() or not file.absolute().parent.is_dir()):
        raise CvnetError(f"{file}: cannot be written; choose a file in a folder that exists")
    return file


def require_text(file: Path | None) -> Path | None:
    """Return the file, which may be None, after checking that its name is not that of an image, which would be lost.

    Raises:
        CvnetError: its name ends like an image's.
    """
    from cvnet_engine.engine.images import SUFFIXES

    suffix = Path(os.path.realpath(file)).suffix.lower() if file else ""
    if suffix in SUFFIXES:
        raise CvnetError(f"{file}: results are text, and {suffix} is for images; choose another file")
    return file
