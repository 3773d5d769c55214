"""README's results are those of benchmarks/results, and no figure in them is typed by hand."""

import json

import pytest

from benchmarks import readme
from engine.errors import DatasetError


def test_readme_matches_the_results():
    text = readme.README.read_text()
    assert readme.updated(text, readme.RESULTS) == text, "run python -m benchmarks.readme"


def test_only_the_section_is_rewritten(tmp_path):
    text = f"before\n{readme.BEGIN}\nold 1.0\n{readme.END}\nafter\n"
    assert readme.updated(text, tmp_path) == f"before\n{readme.BEGIN}\n\n\n{readme.END}\nafter\n"


def test_readme_without_the_section(tmp_path):
    with pytest.raises(DatasetError, match="has no section"):
        readme.updated("nothing", tmp_path)


def test_what_precision_costs(tmp_path):
    aps = {"fp32": [50.0, 60.0], "int8": [49.0, 60.0]}
    rows = {name: {"global M": values, "reranked M": values, "reranked H": values} for name, values in aps.items()}
    report = {"command": "audit it", "datasets": {"test": rows, "photos": rows}}
    (tmp_path / "precision.json").write_text(json.dumps(report))
    lines = readme.section(tmp_path).splitlines()
    heads = (
        "generated test scenes, global M | generated test scenes, reranked M | photos, global M | photos, reranked M"
    )
    assert f"|  | {heads} |" in lines
    assert "| fp32 | 55.00 | 55.00 | 55.00 | 55.00 |" in lines
    assert f"| int8{' | -0.50 ± 0.50' * 4} |" in lines
    assert any(line.startswith("`audit it`") for line in lines)
