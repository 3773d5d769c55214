"""README's results are those of benchmarks/results, and no figure in them is typed by hand."""

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
