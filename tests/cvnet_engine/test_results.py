"""Results show themselves in a notebook."""

from __future__ import annotations

from pathlib import Path

import cv2

from cvnet_engine.engine.retrieval.ranking import Hit
from cvnet_engine.results import Results
from tests.pictures import photo


def test_a_ranking_is_shown_as_pictures(tmp_path):
    path = photo(tmp_path / "a.jpg")
    hit = Hit(path, 1, 0, 0.9, 0.5, None, 0.8, None, 2)
    for query in (path, cv2.imread(str(path))):
        html = Results(query, (0, 0, 40, 32), (hit,), 7, 1, 0, {}, "a notice")._repr_html_()
        assert html.count("data:image/jpeg;base64,") == 2
        assert "width:50.00%;height:50.00%" in html
        assert "a notice" in html
    assert "a.jpg" in html


def test_results_without_pictures_are_shown_too(tmp_path):
    hit = Hit(Path("/gone.jpg"), 1, 0, 0.9, 0.9, None, None, None, 1)
    html = Results(tmp_path / "gone.jpg", None, (hit,), 7, 0, 0, {}, None)._repr_html_()
    assert html.count("This picture cannot be read.") == 2
