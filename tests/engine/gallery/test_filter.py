"""Filters: by what a path contains, in any case, by folder, and by when a photo was taken."""

from __future__ import annotations

import numpy as np
import pytest

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.filter import Filter

TAKEN = np.array(["2019-06-01", "2019-06-30", "NaT", "2020-01-01"], "datetime64[s]")
PATHS = ["/photos/Abbey/view 1.jpg", "/photos/Abbey/view 2.jpg", "/photos/abb/VIEW 1.jpg", "/other/Straße.jpg"]


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        (Filter(name="view 1"), [0, 2]),
        (Filter(name="ABBEY"), [0, 1]),
        (Filter(name="STRASSE"), [3]),
        (Filter(folder="/photos"), [0, 1, 2]),
        (Filter(folder="/photos/"), [0, 1, 2]),
        (Filter(folder="/photos/Abb"), []),
        (Filter(folder="/"), [0, 1, 2, 3]),
        (Filter("view 1", "/photos/abb"), [2]),
        (Filter(name="absent"), []),
        (Filter(taken_from="2019-06-02"), [1, 3]),
        (Filter(taken_to="2019"), [0, 1]),
        (Filter(name="view", taken_from="2019-06", taken_to="2019-06"), [0, 1]),
        (Filter(folder="/other", taken_to="2019"), []),
    ],
)
def test_what_remains(condition, rows):
    found = condition.rows(lambda: PATHS, lambda: TAKEN)
    assert found.dtype == np.int64
    assert found.tolist() == rows


def test_no_condition_leaves_all():
    assert Filter().rows(pytest.fail, pytest.fail) is None


def test_only_what_a_condition_needs_is_asked_for():
    assert Filter(name="abbey").rows(lambda: PATHS, pytest.fail).tolist() == [0, 1]
    assert Filter(taken_from="2020").rows(pytest.fail, lambda: TAKEN).tolist() == [3]


def test_a_date_of_another_form_is_refused():
    with pytest.raises(GalleryError, match="expected a year, month or day"):
        Filter(taken_from="yesterday").rows(lambda: PATHS, lambda: TAKEN)


def test_conditions_are_parsed():
    assert Filter.parse([]) == Filter()
    assert Filter.parse(["folder=/a=b", "name= x"]) == Filter(" x", "/a=b")
    for wrong in (["x"], ["path=a"], ["name=a", "name=b"]):
        with pytest.raises(GalleryError, match=r"filter '.*' is not a new condition; expected name=\.\.\., folder="):
            Filter.parse(wrong)
