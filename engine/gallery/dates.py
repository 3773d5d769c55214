"""Images by when they were taken."""

from __future__ import annotations

import re

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import GalleryError

DAY = re.compile(r"\d{4}(-\d\d){0,2}", re.ASCII)


def taken_within(taken: Array, first: str | None = None, last: str | None = None) -> Array:
    """Which images (n,) bool of `Gallery.taken` (n,) datetime64[s] were taken from `first` to the end of `last`.

    Either is a year, month or day, as 2019, 2019-06 or 2019-06-15, or None for no bound. Without a date, an image is
    within none.

    Raises:
        GalleryError: a date of another form, or none of the calendar.
    """
    within = ~np.isnat(taken)
    if first:
        within &= taken >= day(first)
    if last:
        within &= taken < day(last) + 1
    return within


def day(text: str) -> np.datetime64:
    """A year, month or day, in units of these."""
    try:
        if not DAY.fullmatch(text):
            raise ValueError(text)
        return np.datetime64(text)
    except ValueError as error:
        raise GalleryError(f"date {text!r}: expected a year, month or day, as 2019, 2019-06 or 2019-06-15") from error
