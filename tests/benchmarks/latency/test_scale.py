"""A generated gallery is one that opens by its columns; what is measured of it is told in the document."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.latency import scale
from benchmarks.latency.scale import Measured, generate, measure, query_near, slope, table
from engine.gallery import reader
from engine.gallery.reader import Gallery

ROOT = Path(__file__).parents[3]


@pytest.fixture
def gallery(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "IMAGES_PER_SHARD", 20)
    generate(tmp_path / "g", 50)
    return tmp_path / "g"


def test_a_generated_gallery_is_whole_and_opens_by_its_columns(gallery, monkeypatch):
    monkeypatch.setattr(reader, "parse_image", None)  # reads no row
    with Gallery(gallery) as opened:
        assert len(opened) == len(set(opened.paths)) == 50
        norms = np.linalg.norm(opened.descriptors[:], axis=1)
        opened.features(20)
    np.testing.assert_allclose(norms, 1, atol=1e-6)


def test_what_is_measured_of_a_gallery(gallery):
    measured = measure(gallery, queries=3)
    assert (measured.images, len(measured.searches_s), measured.exact) == (50, 3, True)
    assert measured.stored > 50 * 8192 * 5 / 2
    assert measured.searched_resident > measured.bare_private > 0


def test_a_query_is_near_its_row():
    row = query_near(np.eye(2048, dtype=np.float32)[0], 1)
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-6)
    assert 0.5 < row[0] < 0.9


def test_growth_is_told_for_a_million_images_more():
    few, many = (
        Measured(n, 0, n * 1e-6, n * 1e-6, 100 * n, 0, [n * 1e-6], [n * 2e-7], 0, 4000 * n, 0, 0, 0, exact=n == 10)
        for n in (10, 110)
    )
    assert slope([few, many], "searched_resident") == 4000
    told = table([few, many], "")
    assert told.note == (
        "A million images more take 1.00 s of the processor to open, 0.20 s a search, 100 MB of private memory, "
        "4.00 GB resident."
    )
    assert [row[-1] for row in told.rows] == ["yes", "no"]


def test_the_document_has_the_table_that_was_measured():
    measured = (ROOT / "benchmarks" / "results" / "scale.md").read_text()
    assert measured.strip() in (ROOT / "docs" / "scale.md").read_text()
