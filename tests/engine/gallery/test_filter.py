"""Filters: by what a path contains, in any case, and by folder."""

from __future__ import annotations

import numpy as np
import pytest

from engine.gallery.filter import Filter

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
    ],
)
def test_what_remains(condition, rows):
    found = condition.rows(PATHS)
    assert found.dtype == np.int64
    assert found.tolist() == rows


def test_no_condition_leaves_all():
    assert Filter().rows(PATHS) is None
