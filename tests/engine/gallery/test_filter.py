"""Filters select images by path, folder, pattern and date."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.filter import Filter, select, taken_within

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
def test_rows_that_meet_all_conditions(condition, rows):
    found = condition.rows(lambda: PATHS, lambda: TAKEN)
    assert found.dtype == np.int64
    assert found.tolist() == rows


def test_no_condition_selects_all():
    assert Filter().rows(pytest.fail, pytest.fail) is None


def test_only_needed_columns_are_read():
    assert Filter(name="abbey").rows(lambda: PATHS, pytest.fail).tolist() == [0, 1]
    assert Filter(taken_from="2020").rows(pytest.fail, lambda: TAKEN).tolist() == [3]


def test_conditions_are_parsed():
    assert Filter.parse([]) == Filter()
    assert Filter.parse(["folder=/a=b", "name= x"]) == Filter(" x", "/a=b")
    for wrong in (["x"], ["path=a"], ["name=a", "name=b"]):
        with pytest.raises(GalleryError, match=r"filter '.*' is not a new condition; expected name=\.\.\., folder="):
            Filter.parse(wrong)


DATES = np.array(
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
def test_both_bounds_are_included(first, last, rows):
    assert np.flatnonzero(taken_within(DATES, first, last)).tolist() == rows


def test_images_without_a_date_are_in_no_interval():
    assert not taken_within(np.full(3, "NaT", "datetime64[s]")).any()
    assert taken_within(np.empty(0, "datetime64[s]")).shape == (0,)


@pytest.mark.parametrize(
    "text", ["2019-13", "2019-02-30", "19", "today", "NaT", "2019-06-15T12", "2019/06", "-2019", "2019-"]
)
def test_other_dates_are_refused(text):
    for bounds in ((text, None), (None, text)):
        with pytest.raises(GalleryError, match=r"expected a year, month or day, as 2019, 2019-06 or 2019-06-15"):
            taken_within(DATES, *bounds)


FILES = [Path(f"/photos/{name}") for name in ("2019/a.jpg", "2019/b.png", "2019 more/a.jpg", "x[1].jpg", "x1.jpg")]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["/photos/2019/b.png"], [1]),
        (["/photos/2019"], [0, 1]),
        (["/photos/2019/"], [0, 1]),
        (["/photos/../photos/2019"], [0, 1]),
        (["/"], [0, 1, 2, 3, 4]),
        (["a.jpg"], [0, 2]),
        (["*.png", "x?.jpg"], [1, 4]),
        (["/photos/2019*"], [0, 1, 2]),
        (["/photos/x[1].jpg"], [3]),  # it is there, so it is no pattern
        (["x[1].jpg"], [4]),
        (["/photos/*/a*"], [0, 2]),
    ],
)
def test_select_by_path_folder_or_pattern(wanted, found):
    assert select(FILES, wanted) == [FILES[row] for row in found]


@pytest.mark.parametrize(
    ("wanted", "found"), [("2019", [0, 1]), ("2019/a.jpg", [0]), (".", range(5)), ("./x*", [3, 4])]
)
def test_select_relative_to_the_working_folder(tmp_path, monkeypatch, wanted, found):
    here = [tmp_path / path.relative_to("/photos") for path in FILES]
    monkeypatch.chdir(tmp_path)
    assert select(here, [wanted]) == [here[row] for row in found]


@pytest.mark.parametrize("wanted", ["/photos/201", "*.tif", "/other", "2019", "A.jpg"])
def test_a_pattern_that_matches_nothing_is_an_error(wanted):
    with pytest.raises(GalleryError, match="no image of the gallery; expected an image's path, a folder or a pattern"):
        select(FILES, ["a.jpg", wanted])
