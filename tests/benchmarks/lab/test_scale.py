"""Measurements of a generated gallery, and their tables."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lab.appending import Beside
from benchmarks.lab.generated import Photographs, generate
from benchmarks.lab.scale import Measured, Progress, beside_table, growth_table, measure, query_near, slope

ROOT = Path(__file__).parents[3]


def measured(images: int, exact: bool) -> Measured:
    beside = Beside([0.2, 0.1, 0.3], [0.4], appended=30, appending_s=1.5, equal=True, grown=exact)
    return Measured(
        images=images,
        stored=0,
        open_s=images * 1e-6,
        open_cpu_s=images * 1e-6,
        opened_private=100 * images,
        first_search_s=0,
        searches_s=[images * 1e-6],
        searches_cpu_s=[images * 2e-7],
        searched_private=0,
        searched_resident=4000 * images,
        bare_private=0,
        open_to_write_s=0,
        read_s=0.001,
        rerank_s=2,
        exact=exact,
        beside=beside,
    )


def test_what_is_measured_of_a_gallery(photographs: Photographs, tiny_bundle: Path, tmp_path: Path) -> None:
    generate(tmp_path / "g", 50, photographs.gallery)
    found = measure(tmp_path / "g", 3, 2, photographs, tiny_bundle)
    assert (found.images, len(found.searches_s), found.exact) == (50, 3, True)
    assert found.stored > 50 * 8192 * 5 / 2
    assert found.searched_resident > found.bare_private > 0
    assert (len(found.beside.alone_s), len(found.beside.beside_s)) == (2, 2)
    assert found.beside.equal
    assert found.beside.appended > 1


def test_a_query_is_near_its_row():
    row = query_near(np.eye(2048, dtype=np.float32)[0], 1)
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-6)
    assert 0.5 < row[0] < 0.9


def test_growth_is_told_for_a_million_images_more():
    found = [measured(10, exact=True), measured(110, exact=False)]
    assert slope(found, "searched_resident") == 4000
    told = growth_table(found, "")
    assert told.note == (
        "A million images more take 1.00 s of the processor to open, 0.20 s a search, 100 MB of private memory, "
        "4.00 GB resident."
    )
    assert [row[-1] for row in told.rows] == ["yes", "no"]


def test_what_a_writer_does_to_queries_is_told():
    rows = beside_table([measured(10, exact=True), measured(110, exact=False)]).rows
    assert rows[0] == ("10", "1.00", "2,000", "200", "400", "20", "yes")
    assert rows[1][-1] == "no"


def test_progress_is_a_line_for_each_tenth(capsys):
    told = Progress("work", 40)
    for _ in range(40):
        told.advance(1)
    assert capsys.readouterr().err.splitlines() == [f"work: {tenth}0%" for tenth in range(1, 11)]


def test_the_documents_table_has_the_measured_figures():
    measured, shown = (figures(ROOT / file) for file in ("benchmarks/results/scale.md", "docs/scale.md"))
    assert shown.keys() == {"10,000", "100,000", "1,000,000"}
    assert all(shown[images] <= measured[images] for images in shown)


def figures(document: Path) -> dict[str, set[str]]:
    """The cells of all table rows that begin with a number of images, without what is in parentheses."""
    found: dict[str, set[str]] = {}
    for row in re.findall(r"^\| (1[0,]+) \|(.*)\|$", document.read_text(), re.MULTILINE):
        cells = {re.sub(r" \(.*\)", "", cell.strip()) for cell in row[1].split("|")}
        found.setdefault(row[0], set()).update(cells)
    return found
