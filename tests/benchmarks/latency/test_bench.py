"""The whole benchmark at a size that takes seconds: everything that it must show, and nothing wrong timed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import tables
from benchmarks.contenders.contender import KEEPING, PUBLISHED, REFERENCE, open_bundle, open_reference
from benchmarks.contenders.entrant import enter
from benchmarks.latency import bench, changes, limits, plots
from benchmarks.latency.photos import photo
from cvnet_engine.cli import app
from engine.bundle import Bundle
from engine.errors import BackendError, DatasetError

SIZE = (64, 96)


@pytest.fixture(scope="module")
def written(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one run's files, by the command line."""
    folder = tmp_path_factory.mktemp("bench")
    words = "bench --sizes 96x64 --galleries 50,300 --shortlists 4,2 --threads 2 --budget 0"
    files = ["--json", folder / "r.json", "--markdown", folder / "r.md", "--plot", folder / "r.png"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["/bin/cvnet-engine", "bench", "--json", "my results.json"])
        patch.setattr(limits, "SIDE", 256)
        patch.setattr(limits, "COPY_VALUES", 2**16)
        patch.setattr(bench, "GROWTH", (0.75,))
        patch.setattr(bench.memory, "peaks", lambda *_: {"pair score": 1_500_000})
        done = CliRunner().invoke(app, [*words.split(), "--bundle", str(bundle), *map(str, files)])
    assert done.exit_code == 0, done.output
    assert "Images of 96x64 px" in done.stdout
    return folder


@pytest.fixture(scope="module")
def report(written: Path) -> dict:
    """The run as machines read it."""
    return json.loads((written / "r.json").read_text())


def find(report, **wanted):
    return [r for r in report["records"] if all(r[name] == value for name, value in wanted.items())]


def test_every_stage_is_there_for_every_method(report, bundle):
    name = bundle.resolve().name
    both = {REFERENCE, name}
    want = {
        "decode": {"cvnet-engine", "OpenCV"},
        "scale, normalise": {"cvnet-engine", "NumPy"},
        "descriptor ×0.7071": both,
        "features ×1": both,
        "descriptor ×1.4142": both,
        "extract, all scales": {*both, KEEPING},
        "pair score": {*both, PUBLISHED, KEEPING},
        "gallery read": {"cvnet-engine"},
        "rerank": {*both, PUBLISHED},
        "whole query": {*both, PUBLISHED},
        "indexing": {name},
        "global search": {"cvnet-engine", "NumPy"},
    }
    assert {stage: {r["method"] for r in find(report, series="stages", stage=stage)} for stage in want} == want
    assert {r["stage"] for r in find(report, series="stages")} == set(want)
    assert [r["count"] for r in find(report, stage="rerank", method=name)] == [2, 4]
    assert {r["count"] for r in find(report, stage="global search")} == {50, 300}


def test_growth_over_size_and_threads(report):
    assert {r["size"] for r in find(report, series="size")} == {"72x48", "96x64"}
    assert {r["threads"] for r in find(report, series="threads")} == {1, 2}
    for series in ("size", "threads"):
        assert {r["stage"] for r in find(report, series=series)} == {"extract, all scales", "pair score"}


def test_records_are_consistent(report):
    for r in report["records"]:
        assert 0 < r["low_ms"] <= r["median_ms"] <= r["high_ms"]
        assert r["per_second"] == pytest.approx(1000 / r["median_ms"])
        assert r["share"] == pytest.approx(r["floor_ms"] / r["median_ms"])
        if not r["projected"]:
            assert r["n"] == len(r["samples_ms"]) >= 3
    (pair,) = find(report, series="stages", stage="pair score", precision="fp32", backend="onnxruntime")
    assert list(pair["speedups"]) == [REFERENCE, PUBLISHED, KEEPING]
    assert pair["baseline"] == REFERENCE
    assert pair["speedup"] == pair["speedups"][REFERENCE][0] > 1
    assert pair["peak_bytes"] == 1_500_000


def test_projected_times_are_those_of_pairs(report):
    (pair,) = find(report, series="stages", stage="pair score", method=PUBLISHED)
    (rerank,) = find(report, stage="rerank", method=PUBLISHED, count=4)
    assert rerank["projected"]
    assert rerank["median_ms"] == pytest.approx(4 * pair["median_ms"])
    engine = next(r for r in find(report, stage="rerank", count=4) if not r["projected"])
    assert engine["speedups"][PUBLISHED][0] == pytest.approx(rerank["median_ms"] / engine["median_ms"])
    assert engine["speedups"][PUBLISHED][1] <= engine["speedups"][PUBLISHED][0] <= engine["speedups"][PUBLISHED][2]


def test_the_report_names_where_it_ran_and_what_was_left_out(report, bundle):
    assert report["command"] == "cvnet-engine bench --json 'my results.json'"
    assert report["machine"]["cpu"]
    assert report["agreement"]["96x64"][bundle.resolve().name]["score"] < 3e-5
    assert report["absent"] == {"PyTorch compiled": "not asked for: --compiled adds it, and minutes"}
    assert len(report["limits"]["moments"]) == 3


def test_a_wrong_result_is_not_timed(bundle):
    class Wrong:
        """A reranker that is off by 0.01."""

        def __init__(self, engine):
            self.inputs, self._engine = engine.inputs, engine

        def run(self, feeds):
            return {"score": self._engine.run(feeds)["score"] + 0.01}

    right = open_bundle(bundle, 2)
    wrong = replace(right, name="wrong", retriever=replace(right.retriever, reranker=Wrong(right.retriever.reranker)))
    present = enter([open_reference(Bundle(bundle), 2), right, wrong], [photo(*SIZE, seed) for seed in range(2)])
    assert [entrant.contender.name for entrant in present.entrants] == [REFERENCE, right.name]
    assert list(present.refused) == ["wrong"]
    assert "differs from PyTorch by 1.0e-02" in present.refused["wrong"]
    assert present.agreements[right.name].score < 1e-5


def test_tables_show_every_record_once(report, written):
    text = (written / "r.md").read_text()
    assert text == tables.document(report)
    assert text.count("| decode |") == 2
    assert "| rerank 4 | PyTorch published | ~" in text
    assert "untrained" in text
    assert "Not timed: PyTorch compiled: not asked for" in text
    stage_rows = sum(len(t.rows) for t in tables.tables(report) if t.title.startswith(("Images", "Global")))
    assert stage_rows == len(find(report, series="stages"))
    for table in tables.tables(report):
        assert all(len(row) == len(table.columns) for row in table.rows)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "0.01"), (9.876, "9.88"), (98.76, "98.8"), (987.6, "988"), (98760, "98,760")]
)
def test_milliseconds(value, text):
    assert tables.ms(value) == text


# ------------------------------------------------------------------------------------------------- two runs


def slower(report, factor, unsteadiness):
    """The report of a machine on which pair scores took `factor` times as long."""
    names = ("median_ms", "low_ms", "high_ms")
    records = [r | ({n: factor * r[n] for n in names} if r["stage"] == "pair score" else {}) for r in report["records"]]
    return report | {"records": records, "limits": report["limits"] | {"unsteadiness": unsteadiness}}


def test_a_run_agrees_with_itself(report):
    found = changes.changes(report, report)
    assert len(found) == sum(not r["projected"] for r in report["records"])
    assert all(c.agrees and not c.real for c in found)


def test_changes_beyond_bounds_and_noise_are_named(report):
    steady = slower(report, 1, 0.0)
    found = changes.changes(steady, slower(report, 1000, 0.0))
    assert {c.record["stage"] for c in found if c.real} == {"pair score"}
    table = changes.change_table(found)
    assert table.rows[0][-1] == "99900% slower"
    assert table.rows[0][0].endswith("pair score")
    assert changes.change_table(changes.changes(slower(report, 1000, 0.0), steady)).rows[0][-1] == "100% faster"


def test_a_change_within_the_machines_own_is_none(report):
    assert not any(c.real for c in changes.changes(report, slower(report, 1000, 2000.0)))


@pytest.mark.parametrize("change", [{"threads": 64}, {"model": "other"}, {"machine": {"cpu": "other"}}])
def test_runs_of_different_machines_do_not_compare(report, change):
    with pytest.raises(DatasetError, match="expected a run of the same"):
        changes.changes(report | change, report)


# --------------------------------------------------------------------------------------------------- figure


def test_a_figure(report, written):
    assert (written / "r.png").read_bytes().startswith(b"\x89PNG")
    assert plots.draw(report, Path("f.pdf")).startswith(b"%PDF")


def test_a_figure_says_what_its_axes_are(report):
    svg = plots.draw(report, Path("f.svg")).decode()
    for text in ("median ms", "image size, megapixels", "candidates reranked", "images in the gallery", "threads"):
        assert f"<!-- {text}" in svg


def test_every_method_has_its_colour():
    names = ["cvnet-engine", "fp32", PUBLISHED, "bf16", "int8", REFERENCE, "OpenCV", "NumPy", KEEPING, "other"]
    found = plots.colours({"records": [{"method": name} for name in names]})
    assert len(set(found.values())) == len(names)
    assert list(found)[:3] == [PUBLISHED, REFERENCE, KEEPING]


def test_a_figure_of_another_kind():
    with pytest.raises(BackendError, match=r"\.png, \.svg, \.pdf"):
        plots.require_drawable(Path("f.gif"))


def test_photos_are_the_same_for_a_seed():
    assert photo(50, 70, 1).shape == (50, 70, 3)
    assert np.array_equal(photo(50, 70, 1), photo(50, 70, 1))
    assert not np.array_equal(photo(50, 70, 1), photo(50, 70, 2))
