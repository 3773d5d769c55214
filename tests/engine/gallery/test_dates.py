"""A date bounds by the whole of the year, month or day that it names."""

from __future__ import annotations

import numpy as np
import pytest

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.filter import taken_within

TAKEN = np.array(
    ["2018-12-31T23:59:59", "2019-01-01", "2019-06-15T12:00:00", "2019-12-31T23:59:59", "2020-01-01", "NaT"],
    "datetime64[s]",
)


@pytest.mark.parametrize(
    ("first", "last", "rows"),
    [
        (None, None, [0, 1, 2, 3, 4]),
        ("2019", None, [1, 2, 3, 4]),
        (None, "2019", [0, 1, 2, 3]),
        ("2019", "2019", [1, 2, 3]),
        ("2019-06", "2019-12", [2, 3]),
        ("2019-06-15", "2019-06-15", [2]),
        ("2019-06-16", "2019-12-30", []),
        ("2020", "2019", []),
        ("0001", "9999", [0, 1, 2, 3, 4]),
    ],
)
def test_both_bounds_are_within(first, last, rows):
    assert np.flatnonzero(taken_within(TAKEN, first, last)).tolist() == rows


def test_what_has_no_date_is_within_none():
    assert not taken_within(np.full(3, "NaT", "datetime64[s]")).any()
    assert taken_within(np.empty(0, "datetime64[s]")).shape == (0,)


@pytest.mark.parametrize(
    "text", ["2019-13", "2019-02-30", "19", "today", "NaT", "2019-06-15T12", "2019/06", "-2019", "2019-"]
)
def test_other_dates_are_refused(text):
    for bounds in ((text, None), (None, text)):
        with pytest.raises(GalleryError, match=r"expected a year, month or day, as 2019, 2019-06 or 2019-06-15"):
            taken_within(TAKEN, *bounds)
