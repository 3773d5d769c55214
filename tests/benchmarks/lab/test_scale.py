"""Generated galleries and what is measured of them; the shared parts of the lab commands."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lab import harness, scale
from benchmarks.lab.scale import generate, measure, query_near, table
from cvnet_engine.engine.errors import DatasetError
from cvnet_engine.engine.gallery import reader
from cvnet_engine.engine.gallery.reader import Gallery


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A generated gallery of 50 images in three shards."""
    monkeypatch.setattr(scale, "IMAGES_PER_SHARD", 20)
    generate(tmp_path, 50)
    return tmp_path


def test_generated_gallery_opens_by_its_columns(gallery, monkeypatch):
    monkeypatch.setattr(reader, "parse_image", None)  # reads no row
    with Gallery(gallery) as opened:
        assert len(opened) == len(set(opened.paths)) == 50
        np.testing.assert_allclose(np.linalg.norm(opened.descriptors[:], axis=1), 1, atol=1e-6)


def test_measurements_of_a_gallery_and_their_table(gallery, monkeypatch):
    found = measure(gallery, 3)
    assert (found.images, len(found.searches_s), found.exact) == (50, 3, True)
    assert found.stored > 50 * 8192 * 5 / 2
    assert found.searched_resident > found.searched_private > 0
    monkeypatch.setattr(scale, "brute_force", lambda *_: scale.Ranking.by_similarity(np.zeros(50, np.float32)))
    wrong = measure(gallery, 3)
    rows = table([asdict(found), asdict(wrong)]).rows
    assert [(row[0], row[-1]) for row in rows] == [("50", "yes"), ("50", "no")]


def test_query_is_near_its_row():
    row = query_near(np.eye(2048, dtype=np.float32)[0], 1)
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-6)
    assert 0.5 < row[0] < 0.9


def test_progress_is_a_line_for_each_tenth(capsys):
    progress = harness.Progress("work", 40)
    for _ in range(40):
        progress.advance()
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == [f"work: {tenth}0%" for tenth in range(1, 11)]


def test_report_has_its_command_and_keeps_dots_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "frontier.json").write_text("published")
    monkeypatch.setattr(sys, "argv", ["scale.py", "--folder", "my folder"])
    head = harness.head("benchmarks.lab.scale")
    assert head["command"] == "python -m benchmarks.lab.scale --folder 'my folder'"
    text = harness.write(tmp_path / "frontier.new", "Pairs", head | {"pairs": 1}, "one\n")
    assert json.loads((tmp_path / "frontier.new.json").read_text()) == head | {"pairs": 1}
    assert (tmp_path / "frontier.new.md").read_text() == text
    assert text == f"# Pairs\n\n{head['machine']['cpu']}; {head['date']}; `{head['command']}`\n\none\n"
    assert (tmp_path / "frontier.json").read_text() == "published"


def test_bad_input_ends_in_one_line() -> None:
    with pytest.raises(SystemExit, match=r"^no such data set$"), harness.errors_as_one_line():
        raise DatasetError("no such data set")
    with pytest.raises(ZeroDivisionError), harness.errors_as_one_line():
        raise ZeroDivisionError
