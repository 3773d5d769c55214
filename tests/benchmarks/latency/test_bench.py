"""The whole benchmark on tiny graphs: its records, tables, figure and comparisons; wrong results are not timed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cvnet_engine.benchmarks.latency import bench, document, limits, plots
from cvnet_engine.benchmarks.latency.limits import Ceiling, Limits
from cvnet_engine.benchmarks.latency.report import Report
from cvnet_engine.benchmarks.latency.stages import photo
from cvnet_engine.benchmarks.methods.comparison import compare
from cvnet_engine.benchmarks.methods.method import KEEPING, PUBLISHED, REFERENCE, open_bundle
from cvnet_engine.benchmarks.tables import ms
from cvnet_engine.cli import app
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import BackendError, DatasetError
from tests.hostile.tiny import open_tiny_reference

SIZE = (64, 96)


@contextlib.contextmanager
def no_process(*_):
    """In place of the reference in another process: calls that do nothing."""
    yield (lambda: None, lambda: None)


def run_bench(bundle: Path, folder: Path) -> None:
    """Run the command with the fewest rounds; writes its three files."""
    words = "bench --sizes 96x64 --galleries 50,300 --shortlists 4,2 --threads 2 --budget 0"
    files = ["--json", folder / "r.json", "--markdown", folder / "r.md", "--plot", folder / "r.svg"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["/bin/cvnet-engine", "bench", "--json", "my results.json"])
        patch.setattr(limits, "SIDE", 256)
        patch.setattr(limits, "COPY_VALUES", 2**16)
        patch.setattr(bench, "GROWTH", (0.75,))
        patch.setattr(bench.memory, "peaks", lambda *_: {"pair score": 1_500_000})
        done = CliRunner().invoke(app, [*words.split(), "--bundle", str(bundle), *map(str, files)])
    assert done.exit_code == 0, done.output
    assert "Images of 96x64 px" in done.stdout


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Iterator[Path]:
    """A bundle of tiny graphs, whose reference is as tiny."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "open_reference", open_tiny_reference)
        patch.setattr(bench, "keeping_reference", no_process)
        yield tiny_bundle


@pytest.fixture(scope="module")
def written(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one run's files."""
    folder = tmp_path_factory.mktemp("bench")
    run_bench(bundle, folder)
    return folder


@pytest.mark.slow
def test_the_real_model_is_timed_beside_pytorch(seeded_bundle, tmp_path):
    run_bench(seeded_bundle, tmp_path)
    report = Report.from_json(tmp_path / "r.json")
    assert {r.method for r in find(report, stage="pair score", series="stages")} >= {REFERENCE, PUBLISHED, KEEPING}
    (pair,) = find(report, series="stages", stage="pair score", backend="onnxruntime")
    assert pair.speedups[REFERENCE].median > 1


@pytest.fixture(scope="module")
def report(written: Path) -> Report:
    """The report read from the run's JSON."""
    return Report.from_json(written / "r.json")


def find(report, **wanted):
    return [r for r in report.records if all(getattr(r, name) == value for name, value in wanted.items())]


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
    assert {stage: {r.method for r in find(report, series="stages", stage=stage)} for stage in want} == want
    assert {r.stage for r in find(report, series="stages")} == set(want)
    assert [r.count for r in find(report, stage="rerank", method=name)] == [2, 4]
    assert {r.count for r in find(report, stage="global search")} == {50, 300}


def test_growth_over_size_and_threads(report):
    assert {r.size for r in find(report, series="size")} == {"72x48", "96x64"}
    assert {r.threads for r in find(report, series="threads")} == {1, 2}
    for series in ("size", "threads"):
        assert {r.stage for r in find(report, series=series)} == {"extract, all scales", "pair score"}


def test_growth_leaves_out_sizes_too_small_to_extract():
    assert bench.growth_sizes((64, 96)) == [(32, 48), (48, 72), (64, 96)]
    assert bench.growth_sizes((768, 1024)) == [(192, 256), (384, 512), (576, 768), (768, 1024)]


def test_records_are_consistent(report):
    for r in report.records:
        assert 0 < r.ms.low <= r.ms.median <= r.ms.high
        assert r.floor_ms == report.limits.floor_ms(r.cost, r.precision) > 0
        if not r.projected:
            assert len(r.ms.samples) >= 3
    (pair,) = find(report, series="stages", stage="pair score", precision="fp32", backend="onnxruntime")
    assert list(pair.speedups) == [REFERENCE, PUBLISHED, KEEPING]
    assert pair.peak_bytes == 1_500_000


def test_derived_figures_are_in_the_json(report):
    written = find(report, series="stages", stage="pair score", backend="onnxruntime")[0].to_json()
    assert written["n"] == len(written["samples_ms"])
    assert written["per_second"] == pytest.approx(1000 / written["median_ms"])
    assert written["share"] == pytest.approx(written["floor_ms"] / written["median_ms"])
    assert written["baseline"] == REFERENCE
    assert written["speedup"] == written["speedups"][REFERENCE][0]


def test_projected_times_are_those_of_pairs(report):
    (pair,) = find(report, series="stages", stage="pair score", method=PUBLISHED)
    (rerank,) = find(report, stage="rerank", method=PUBLISHED, count=4)
    assert rerank.projected
    assert rerank.ms.median == pytest.approx(4 * pair.ms.median)
    engine = next(r for r in find(report, stage="rerank", count=4) if not r.projected)
    speedup = engine.speedups[PUBLISHED]
    assert speedup.median == pytest.approx(rerank.ms.median / engine.ms.median)
    assert speedup.low <= speedup.median <= speedup.high


def test_an_estimated_query_is_extraction_plus_pairs(report):
    (extract,) = find(report, series="stages", stage="extract, all scales", method=REFERENCE)
    (pair,) = find(report, series="stages", stage="pair score", method=REFERENCE)
    (whole,) = find(report, stage="whole query", method=REFERENCE)
    assert whole.projected
    assert whole.ms.median == pytest.approx(extract.ms.median + whole.count * pair.ms.median)
    assert np.median(whole.ms.samples) == pytest.approx(whole.ms.median)


def test_the_report_names_its_machine_and_what_is_absent(report, bundle):
    assert report.command == "cvnet-engine bench --json 'my results.json'"
    assert report.machine["cpu"]
    assert report.agreement["96x64"][bundle.resolve().name].score < 3e-5
    assert report.absent == {"PyTorch compiled": "not requested: --compiled adds it and takes minutes longer"}
    assert len(report.limits.moments) == 3


def test_a_wrong_result_is_not_timed(bundle):
    class Wrong:
        """A reranker that is off by 0.01."""

        def __init__(self, engine):
            self.inputs, self._engine = engine.inputs, engine

        def run(self, feeds):
            return {"score": self._engine.run(feeds)["score"] + 0.01}

    right = open_bundle(bundle, 2)
    wrong = replace(right, name="wrong", engines=replace(right.engines, reranker=Wrong(right.engines.reranker)))
    compared = compare(
        [open_tiny_reference(Bundle(bundle), 2), right, wrong], [photo(*SIZE, seed) for seed in range(2)]
    )
    assert [prepared.method.name for prepared in compared.prepared] == [REFERENCE, right.name]
    assert list(compared.refused) == ["wrong"]
    assert "differs from PyTorch by 1.0e-02" in compared.refused["wrong"]
    assert compared.differences[right.name].score < 1e-5


def test_tables_show_every_record_once(report, written):
    text = (written / "r.md").read_text()
    assert text == document.document(report)
    assert text.count("| decode |") == 2
    assert "| rerank 4 | PyTorch published | ~" in text
    assert "untrained" in text
    assert "Not timed: PyTorch compiled: not requested" in text
    stage_rows = sum(len(t.rows) for t in document.tables(report) if t.title.startswith(("Images", "Global")))
    assert stage_rows == len(find(report, series="stages"))
    for table in document.tables(report):
        assert all(len(row) == len(table.columns) for row in table.rows)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "0.01"), (9.876, "9.88"), (98.76, "98.8"), (987.6, "988"), (98760, "98,760")]
)
def test_milliseconds(value, text):
    assert ms(value) == text


# ------------------------------------------------------------------------------------------------- two runs


def timed(report, pair_factor, unsteadiness):
    """The run with bounds that are their medians, pair scores `pair_factor` times as long, on such a machine."""

    def exact(r):
        median = r.ms.median * (pair_factor if r.stage == "pair score" else 1)
        return replace(r, ms=replace(r.ms, low=median, median=median, high=median))

    moments = [Limits({"fp32": rate}, 1.0) for rate in (1.0, 1 - unsteadiness)]
    return replace(report, records=tuple(map(exact, report.records)), limits=Ceiling(moments))


def test_a_run_agrees_with_itself(report):
    found = document.changes(report, report)
    assert len(found) == sum(not r.projected for r in report.records)
    assert all(c.agrees and not c.real for c in found)


def test_changes_beyond_noise_are_listed(report):
    before, after = timed(report, 1, 0.0), timed(report, 1000, 0.0)
    found = document.changes(before, after)
    assert {c.new.stage for c in found if c.real} == {"pair score"}
    table = document.change_table(found)
    assert table.rows[0][-1] == "99900% slower"
    assert table.rows[0][0].endswith("pair score")
    assert document.change_table(document.changes(after, before)).rows[0][-1] == "100% faster"


@pytest.mark.parametrize(("unsteadiness", "real"), [(0.4, {"pair score"}), (0.6, set())])
@pytest.mark.parametrize("factors", [(1, 1.5), (1.5, 1)])
def test_a_change_within_the_noise_of_the_machine_is_none(report, unsteadiness, real, factors):
    old, new = (timed(report, factor, unsteadiness) for factor in factors)
    found = document.changes(old, new)
    assert {c.new.stage for c in found if not c.agrees} == {"pair score"}
    assert {c.new.stage for c in found if c.real} == real


@pytest.mark.parametrize("change", [{"threads": 64}, {"model": "other"}, {"machine": {"cpu": "other"}}])
def test_runs_of_different_machines_do_not_compare(report, change):
    with pytest.raises(DatasetError, match="expected a run of the same"):
        document.changes(replace(report, **change), report)


# --------------------------------------------------------------------------------------------------- figure


def test_a_figure_names_its_axes(written):
    svg = (written / "r.svg").read_text()
    for text in ("median ms", "image size, megapixels", "candidates reranked", "images in the gallery", "threads"):
        assert f"<!-- {text}" in svg


def test_every_method_has_its_colour(report):
    names = ["cvnet-engine", "fp32", PUBLISHED, "bf16", "int8", REFERENCE, "OpenCV", "NumPy", KEEPING, "other"]
    found = plots.colours(replace(report, records=tuple(replace(report.records[0], method=name) for name in names)))
    assert len(set(found.values())) == len(names)
    assert list(found)[:3] == [PUBLISHED, REFERENCE, KEEPING]


def test_a_figure_of_another_format_is_refused():
    with pytest.raises(BackendError, match=r"\.png, \.svg, \.pdf"):
        plots.require_drawable(Path("f.gif"))


def test_photos_are_the_same_for_a_seed():
    assert photo(50, 70, 1).shape == (50, 70, 3)
    assert np.array_equal(photo(50, 70, 1), photo(50, 70, 1))
    assert not np.array_equal(photo(50, 70, 1), photo(50, 70, 2))
