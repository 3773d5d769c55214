"""README's table and docs/results.md are those of benchmarks/results, and no figure in them is typed by hand."""

import json
import re

import pytest

from benchmarks.lab import readme
from cvnet_engine.benchmarks.tables import replace_section
from cvnet_engine.engine.errors import DatasetError


def test_documents_match_the_results():
    text = readme.README.read_text()
    assert readme.updated(text) == text, f"run {readme.COMMAND}"
    assert readme.DOCUMENT.read_text() == readme.document(readme.RESULTS), f"run {readme.COMMAND}"


def test_only_the_section_is_replaced():
    begin, end = "<!-- speed: written by a command -->", "<!-- end of speed -->"
    text = f"before\n{begin}\nold 1.0\n{end}\nafter\n"
    assert replace_section(text, "speed", "a command", "new") == f"before\n{begin}\n\nnew\n{end}\nafter\n"


def test_a_document_without_the_section():
    with pytest.raises(DatasetError, match="has no section"):
        replace_section("nothing", "speed", "a command", "new")


def test_each_ratio_in_the_table_is_to_pytorch():
    measured = [r for r in json.loads((readme.RESULTS / "cpu.json").read_text())["records"] if r["series"] == "stages"]
    pairs = [r for r in measured if r["stage"] == "pair score"]  # by size, the largest last
    row = next(line for line in readme.headline(readme.RESULTS).splitlines() if line.startswith("| score a pair |"))
    ratios = [r["speedups"][readme.REFERENCE][0] for r in pairs if r["method"] in ("fp32", "bf16", "int8")]
    assert re.findall(r"([\d.]+)×", row) == [f"{ratio:.1f}" for ratio in ratios[-3:]]
