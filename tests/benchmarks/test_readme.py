"""README's table and docs/results.md are those of benchmarks/results, and no figure in them is typed by hand."""

import json
import re

import pytest

from cvnet_engine.benchmarks import readme
from cvnet_engine.engine.errors import DatasetError


def test_documents_match_the_results():
    text = readme.README.read_text()
    assert readme.updated(text, readme.SPEED, readme.headline(readme.RESULTS)) == text, (
        "run python -m benchmarks.readme"
    )
    presets = readme.choices(readme.RESULTS / "frontier.json")
    assert readme.updated(text, readme.PRESETS, presets) == text, "run python -m benchmarks.readme"
    assert readme.DOCUMENT.read_text() == readme.document(readme.RESULTS), "run python -m benchmarks.readme"


def test_only_the_section_is_rewritten():
    begin, end = "<!-- speed: written by python -m benchmarks.readme -->", "<!-- end of speed -->"
    text = f"before\n{begin}\nold 1.0\n{end}\nafter\n"
    assert readme.updated(text, "speed", "new") == f"before\n{begin}\n\nnew\n{end}\nafter\n"


def test_readme_without_the_section():
    with pytest.raises(DatasetError, match="has no section"):
        readme.updated("nothing", "speed", "new")


def test_the_table_takes_each_ratio_from_its_own_baseline():
    measured = [r for r in json.loads((readme.RESULTS / "cpu.json").read_text())["records"] if r["series"] == "stages"]
    pairs = [r for r in measured if r["stage"] == "pair score"]  # by size, the largest last
    rows = readme.headline(readme.RESULTS).splitlines()
    for name, baseline in (("score of a pair", readme.REFERENCE), (readme.THE_SAME, readme.KEEPING)):
        row = next(row for row in rows if row.startswith(f"| {name} |"))
        ratios = [r["speedups"][baseline][0] for r in pairs if r["method"] in ("fp32", "bf16", "int8")]
        assert re.findall(r"([\d.]+)×", row) == [f"{ratio:.1f}" for ratio in ratios[-3:]]
    longest = max(r["count"] for r in measured if r["stage"] == "whole query")
    assert sum(row.startswith(f"| whole query, best {longest} reranked | ~") for row in rows) == 1


def test_what_precision_costs(tmp_path):
    aps = {"fp32": [50.0, 60.0], "int8": [49.0, 60.0]}
    rows = {name: {"global M": values, "reranked M": values, "reranked H": values} for name, values in aps.items()}
    report = {"command": "audit it", "datasets": {"test": rows, "photos": rows}}
    (tmp_path / "precision.json").write_text(json.dumps(report))
    lines = readme.document(tmp_path).splitlines()
    heads = (
        "generated test scenes, global M | generated test scenes, reranked M | photos, global M | photos, reranked M"
    )
    assert f"|  | {heads} |" in lines
    assert "| fp32 | 55.00 | 55.00 | 55.00 | 55.00 |" in lines
    assert f"| int8{' | -0.50 ± 0.50' * 4} |" in lines
    assert any(line.startswith("`audit it`") for line in lines)
