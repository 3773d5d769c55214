"""README, docs/scale.md and docs/results.md hold the figures of benchmarks/results, and none typed by hand."""

import json
import re

import pytest

from benchmarks.lab import readme
from benchmarks.lab.frontier.report import markdown
from benchmarks.lab.harness import head_line
from cvnet_engine.benchmarks.tables import replace_section
from cvnet_engine.engine.errors import DatasetError


@pytest.mark.parametrize("document", [readme.README, readme.SCALE, readme.DOCUMENT], ids=lambda file: file.name)
def test_document_matches_the_results(document):
    assert document.read_text() == readme.written(readme.RESULTS)[document], f"run {readme.COMMAND}"


def test_frontier_tables_match_their_json():
    content = json.loads((readme.RESULTS / "frontier.json").read_text())
    title = "# Accuracy against time and space"
    assert (readme.RESULTS / "frontier.md").read_text() == f"{title}\n\n{head_line(content)}\n\n{markdown(content)}"


def test_only_the_section_is_replaced():
    begin, end = "<!-- speed: written by a command -->", "<!-- end of speed -->"
    text = f"before\n{begin}\nold 1.0\n{end}\nafter\n"
    assert replace_section(text, "speed", "a command", "new") == f"before\n{begin}\n\nnew\n{end}\nafter\n"
    with pytest.raises(DatasetError, match="has no section"):
        replace_section("nothing", "speed", "a command", "new")


def test_each_ratio_in_the_table_is_to_pytorch():
    measured = [r for r in json.loads((readme.RESULTS / "cpu.json").read_text())["records"] if r["series"] == "stages"]
    pairs = [r for r in measured if r["stage"] == "pair score"]  # by size, the largest last
    row = next(line for line in readme.speed(readme.RESULTS).splitlines() if line.startswith("| score a pair |"))
    ratios = [r["speedups"][readme.REFERENCE][0] for r in pairs if r["method"] in ("fp32", "bf16", "int8")]
    assert re.findall(r"([\d.]+)×", row) == [f"{ratio:.1f}" for ratio in ratios[-3:]]
