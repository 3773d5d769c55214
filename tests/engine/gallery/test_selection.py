"""Images are meant by their path, by their folder or by a pattern."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.filter import select

PATHS = [Path(f"/photos/{name}") for name in ("2019/a.jpg", "2019/b.png", "2019 more/a.jpg", "x[1].jpg", "x1.jpg")]


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
def test_select(wanted, found):
    assert select(PATHS, wanted) == [PATHS[row] for row in found]


@pytest.mark.parametrize(
    ("wanted", "found"), [("2019", [0, 1]), ("2019/a.jpg", [0]), (".", range(5)), ("./x*", [3, 4])]
)
def test_paths_and_patterns_from_here(tmp_path, monkeypatch, wanted, found):
    here = [tmp_path / path.relative_to("/photos") for path in PATHS]
    monkeypatch.chdir(tmp_path)
    assert select(here, [wanted]) == [here[row] for row in found]


@pytest.mark.parametrize("wanted", ["/photos/201", "*.tif", "/other", "2019", "A.jpg"])
def test_what_stands_for_nothing_is_an_error(wanted):
    with pytest.raises(GalleryError, match="no image of the gallery; expected an image's path, a folder or a pattern"):
        select(PATHS, ["a.jpg", wanted])
