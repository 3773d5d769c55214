"""README's table and docs/results.md are those of benchmarks/results, and no figure in them is typed by hand."""

import json

import pytest

from benchmarks import readme
from engine.errors import DatasetError


def test_documents_match_the_results():
    text, table = readme.README.read_text(), readme.headline(readme.read(readme.RESULTS / "cpu.json"))
    assert readme.updated(text, table) == text, "run python -m benchmarks.readme"
    assert readme.DOCUMENT.read_text() == readme.document(readme.RESULTS), "run python -m benchmarks.readme"


def test_only_the_section_is_rewritten():
    text = f"before\n{readme.BEGIN}\nold 1.0\n{readme.END}\nafter\n"
    assert readme.updated(text, "new") == f"before\n{readme.BEGIN}\n\nnew\n{readme.END}\nafter\n"


def test_readme_without_the_section():
    with pytest.raises(DatasetError, match="has no section"):
        readme.updated("nothing", "new")


def record(stage, method, median_ms, speedups, count=None):
    known = {"series": "stages", "size": "8x8", "projected": stage == "whole query" and method == readme.REFERENCE}
    return known | {"stage": stage, "method": method, "median_ms": median_ms, "speedups": speedups, "count": count}


def test_headline_takes_each_ratio_from_its_own_baseline():
    """In every stage the engine takes 90 ms, PyTorch 900, and 300 with memory kept; ratios are those of the rounds."""
    records = [record("indexing", "fp32", 1.0, {})]
    for stage, count in (
        ("pair score", None),
        ("extract, all scales", None),
        ("whole query", 10),
        ("whole query", 100),
    ):
        records += [
            record(stage, readme.REFERENCE, 900.0, {}, count),
            record(stage, readme.KEEPING, 300.0, {}, count),
            record(stage, "fp32", 90.0, {readme.REFERENCE: [11.0, 9, 12], readme.KEEPING: [4.0, 3, 5]}, count),
        ]
    report = {"records": records, "machine": {"cpu": "X", "cpu_features": ["y"]}}
    lines = readme.headline(report | {"threads": 2, "date": "today", "model": "M"}).splitlines()
    assert lines[0].startswith("2 threads of an X (y), today, M, images of 8x8 px")
    assert lines[4:] == [
        "| whole query, best 100 reranked | ~900 | 90.0: 11.0× |",
        "| score of a pair | 900 | 90.0: 11.0× |",
        "| the same, PyTorch keeping its memory | 300 | 90.0: 4.0× |",
        "| features of an image, all scales | 900 | 90.0: 11.0× |",
        "| the same, PyTorch keeping its memory | 300 | 90.0: 4.0× |",
    ]


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
