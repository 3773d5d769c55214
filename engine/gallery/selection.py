"""Which images of a gallery are meant: by their paths, by folders, by patterns."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.files import absolute


def select(paths: Sequence[Path], wanted: Sequence[str]) -> list[Path]:
    """The images that any of `wanted` stands for, in the gallery's order.

    A path stands for the image of that name, or for all below the folder of that name. What is neither is a pattern:
    `*` stands for any characters, slashes too, `?` for one, `[ab]` for one of them; of the file's name, or of the whole
    path where the pattern has a slash.

    Raises:
        GalleryError: one of them stands for nothing.
    """
    chosen: set[Path] = set()
    for text in wanted:
        found = list(filter(is_at(text), paths)) or list(filter(fits(text), paths))
        if not found:
            raise GalleryError(
                f"{text}: no image of the gallery; expected an image's path, a folder or a pattern such as '*.png', "
                "which 'cvnet-engine gallery list' tries"
            )
        chosen.update(found)
    return [path for path in paths if path in chosen]


def is_at(text: str) -> Callable[[Path], bool]:
    """Whether an image has that path, or is below it."""
    file, folder = absolute(Path(text)), f"{str(absolute(Path(text) / 'any').parent).rstrip('/')}/"
    return lambda path: path == file or str(path).startswith(folder)


def fits(pattern: str) -> Callable[[Path], bool]:
    """Whether an image fits a pattern."""
    if "/" not in pattern:
        name = re.compile(fnmatch.translate(pattern))
        return lambda path: bool(name.match(path.name))
    whole = re.compile(fnmatch.translate(str(absolute(Path(pattern)))))
    return lambda path: bool(whole.match(str(path)))
