"""The harness of the laboratory: output files, heads of reports, one-line errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.lab import commands
from cvnet_engine.engine.errors import DatasetError


def test_a_report_goes_beside_others_whatever_dots_its_name_has(tmp_path: Path) -> None:
    (tmp_path / "frontier.json").write_text("published")
    commands.write(tmp_path / "frontier.new", {"pairs": 1}, "# Pairs\n")
    assert json.loads((tmp_path / "frontier.new.json").read_text()) == {"pairs": 1}
    assert (tmp_path / "frontier.new.md").read_text() == "# Pairs\n"
    assert (tmp_path / "frontier.json").read_text() == "published"


def test_a_report_has_the_whole_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scale.py", "--bundle", "my bundle", "--images", "10"])
    head = commands.head("benchmarks.lab.scale")
    assert head["command"] == "python -m benchmarks.lab.scale --bundle 'my bundle' --images 10"
    assert commands.head_line(head) == f"{head['machine']['cpu']}; {head['date']}; `{head['command']}`"


def test_an_error_of_the_input_is_a_line() -> None:
    with pytest.raises(SystemExit, match=r"^no such data set$"), commands.errors_as_one_line():
        raise DatasetError("no such data set")
    with pytest.raises(ZeroDivisionError), commands.errors_as_one_line():
        raise ZeroDivisionError
