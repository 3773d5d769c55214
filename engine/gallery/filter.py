"""Filters: conditions that select images of a gallery by path, folder, pattern or date."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.files import absolute

DAY = re.compile(r"\d{4}(-\d\d){0,2}", re.ASCII)


@dataclass(frozen=True)
class Filter:
    """Conditions on an image, all of which it has to meet. Conditions that are empty are always met.

    Attributes:
        name: text that the path contains, in any case.
        folder: absolute path of a folder that contains the image, directly or in a subfolder.
        taken_from, taken_to: first and last year, month or day, as 2019, 2019-06 or 2019-06-15.
        images: paths, folders and patterns, at least one of which fits the image; see `fitting`.
    """

    name: str = ""
    folder: str = ""
    taken_from: str = ""
    taken_to: str = ""
    images: tuple[str, ...] = ()

    @classmethod
    def parse(cls, conditions: Iterable[str]) -> Filter:
        """Parse conditions such as `name=abbey`, each key at most once.

        Raises:
            GalleryError: an unknown or repeated key.
        """
        keys = [field.name for field in fields(cls) if field.name != "images"]
        values: dict[str, Any] = {}
        for condition in conditions:
            key, equals, value = condition.partition("=")
            if not equals or key not in keys or key in values:
                expected = ", ".join(f"{key}=..." for key in keys)
                raise GalleryError(f"filter {condition!r} is not a new condition; expected {expected}, each once")
            values[key] = value
        return cls(**values)

    def rows(self, paths: Callable[[], Sequence[str]], taken: Callable[[], Array]) -> Array | None:
        """Return the rows (n,) int64 of the images that meet all conditions, ascending; None for all images.

        Args:
            paths: returns the path of each row; called only if needed.
            taken: returns `Gallery.taken`; called only if needed.

        Raises:
            GalleryError: a malformed date, or one of `images` that fits no image.
        """
        conditions: list[Array] = []  # (n,) bool each
        if self.name or self.folder:
            part, below = self.name.casefold(), self.folder.rstrip("/") + "/" if self.folder else ""
            conditions.append(np.array([path.startswith(below) and part in path.casefold() for path in paths()], bool))
        if self.taken_from or self.taken_to:
            conditions.append(taken_within(taken(), self.taken_from, self.taken_to))
        if self.images:
            conditions.append(np.any([fitting(text, paths()) for text in self.images], axis=0))
        return np.flatnonzero(np.all(conditions, axis=0)) if conditions else None


def taken_within(taken: Array, first: str | None = None, last: str | None = None) -> Array:
    """Return a mask (n,) bool of the dates of `Gallery.taken` (n,) between `first` and the end of `last`.

    Either is a year, month or day, as 2019, 2019-06 or 2019-06-15, or None for no bound. NaT lies in no interval.

    Raises:
        GalleryError: a malformed date.
    """
    within = ~np.isnat(taken)
    if first:
        within &= taken >= day(first)
    if last:
        within &= taken < day(last) + 1
    return within


def day(text: str) -> np.datetime64:
    """Parse a year, month or day into a datetime64 of that unit."""
    try:
        if not DAY.fullmatch(text):
            raise ValueError(text)
        return np.datetime64(text)
    except ValueError as error:
        raise GalleryError(f"date {text!r}: expected a year, month or day, as 2019, 2019-06 or 2019-06-15") from error


def select(paths: Sequence[Path], images: Sequence[str]) -> list[Path]:
    """Return the paths that fit at least one of some paths, folders and patterns, in their order; see `fitting`."""
    rows = Filter(images=tuple(images)).rows(lambda: list(map(str, paths)), lambda: np.array([]))
    return list(paths) if rows is None else [paths[row] for row in rows.tolist()]


def fitting(text: str, paths: Sequence[str]) -> Array:
    """Return a mask (n,) bool of the images with this path or in this folder; if none, of those matching this pattern.

    In a pattern, `*` matches any characters including slashes, `?` one character, `[ab]` one of these. A pattern
    without a slash is matched with the name of the file, one with a slash with the whole path.

    Raises:
        GalleryError: it fits no image.
    """
    for test in (is_at(text), matches(text)):
        found: Array = np.array([test(path) for path in paths], bool)
        if found.any():
            return found
    raise GalleryError(
        f"{text}: no image of the gallery; expected an image's path, a folder or a pattern such as '*.png'; "
        "'cvnet-engine gallery list' shows the images that a pattern matches"
    )


def is_at(text: str) -> Callable[[str], bool]:
    place = str(absolute(Path(text)))
    folder = f"{place.rstrip('/')}/"
    return lambda path: path == place or path.startswith(folder)


def matches(pattern: str) -> Callable[[str], bool]:
    if "/" not in pattern:
        name = re.compile(fnmatch.translate(pattern))
        return lambda path: bool(name.match(path.rpartition("/")[2]))
    whole = re.compile(fnmatch.translate(str(absolute(Path(pattern)))))
    return lambda path: bool(whole.match(path))
