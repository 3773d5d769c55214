"""The document is what the command writes, and its figures follow from the stages."""

from __future__ import annotations

import pytest

from cvnet_engine.benchmarks import forecast
from cvnet_engine.benchmarks.forecast import Stages, evaluation, indexing, map_bytes, searching, size, storage
from cvnet_engine.benchmarks.readme import RESULTS
from cvnet_engine.engine.errors import DatasetError

STAGES = Stages("a machine", {"fp32": 3.6}, {"fp32": 9.0}, 1e-7, 1e-6, 20_000, 5_000, 100)


def test_the_document_is_what_the_command_writes():
    text = forecast.DOCUMENT.read_text()
    assert forecast.updated(text, forecast.sections(RESULTS)) == text, "run python -m benchmarks.forecast"


def test_only_the_sections_are_rewritten():
    begin, end = forecast.BEGIN.format("measured"), forecast.END.format("measured")
    assert forecast.updated(f"a {begin} old {end} b", {"measured": "new"}) == f"a {begin}\n\nnew\n\n{end} b"
    with pytest.raises(DatasetError, match="no section from '<!-- measured"):
        forecast.updated(f"a {end} {begin}", {"measured": "new"})


def test_stages_are_those_that_were_measured():
    stages = Stages.read(RESULTS)
    assert list(stages.index_s) == list(stages.rerank_s)
    for of_precision, least, most in ((stages.index_s, 0.01, 10), (stages.rerank_s, 0.1, 100)):
        assert all(least < seconds < most for seconds in of_precision.values())
    assert 1e-8 < stages.scan_s < 1e-6
    assert 5 * 2048 < stages.stored_bytes < 30_000
    assert 2 * 2048 < stages.mapped_bytes < 8_000


def test_bytes_of_maps():
    positions = 48 * 64 + 34 * 45 + 24 * 32
    assert [map_bytes(kind) for kind in ("float16", "int8", "coded:24")] == [n * positions for n in (512, 260, 24)]
    coded = next(row for row in storage(STAGES).rows if row[0] == "coded:24")
    assert coded[1:] == ("129 KB", "149 GB", "14.9 TB")


def test_hours_and_machines():
    (row,) = indexing(STAGES).rows
    assert row == ("fp32", "3.60", "1,000", "100,000", "42", "4,167")
    few, many = searching(STAGES).rows
    assert few == ("1M", "1", "5 GB", "100 MB", "1.0", "0.10", "9.0")
    assert many == ("100M", "11", "45.5 GB", "909 MB", "9.1", "0.91", "9.0")


def test_the_worked_example():
    table = evaluation(STAGES)
    (row,) = table.rows
    images, searches = 1_001_001 + 4_993 + 6_322, 70 * (2 * 1_001_001 + 4_993 + 6_322)
    assert row == ("fp32", f"{(images + 140) / 1000:,.0f}", "43", f"{searches * 1e-7:.0f}", "0.3 to 1.1")
    assert table.note.startswith("Both in one gallery: 2.8 TB as float16")


@pytest.mark.parametrize(("of", "told"), [(1.5e6, "1.5 MB"), (9.996e9, "10 GB"), (2.75e12, "2.75 TB")])
def test_sizes(of, told):
    assert size(of) == told
