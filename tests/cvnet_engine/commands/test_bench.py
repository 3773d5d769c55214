"""`bench` given what it cannot use; what it measures is tested in tests/benchmarks."""

from pathlib import Path

import pytest

from cvnet_engine.commands.bench import distinct, parse_counts, run
from cvnet_engine.engine.errors import BackendError, CvnetError, DatasetError
from cvnet_engine.options import BenchOptions


def test_counts_are_sorted_and_taken_once():
    assert parse_counts("--galleries", "100, 10,100") == (10, 100)


@pytest.mark.parametrize("text", ["", "many", "10,,20", "0", "-5", "1.5"])
def test_bad_counts(text):
    with pytest.raises(DatasetError, match=f"--shortlists '{text}': expected whole numbers"):
        parse_counts("--shortlists", text)


def test_bundles_are_told_apart_by_name(tmp_path):
    assert distinct([tmp_path / "a", tmp_path / "b"]) == (tmp_path / "a", tmp_path / "b")
    with pytest.raises(BackendError, match="named a, a; expected folders of different names"):
        distinct([tmp_path / "a", tmp_path / "x" / "a"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": "big"}, "--sizes 'big'"),
        ({"sizes": "8x8"}, "--sizes '8x8'"),
        ({"plot": Path("p.gif")}, "p.gif: expected a file that ends in"),
        ({"compare": Path("absent.json")}, "absent.json: not readable"),
        ({}, "absent: not a bundle"),
    ],
)
def test_bad_input_is_met_before_the_work(change, message):
    with pytest.raises(CvnetError, match=message):
        run(BenchOptions([Path("absent")], **({"sizes": "64x64"} | change)))
