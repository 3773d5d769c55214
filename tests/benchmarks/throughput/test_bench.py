"""Throughput: configurations are measured in turn, without the warm-up round, and compared with PyTorch by round."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cvnet_engine.benchmarks.latency.timing import Interval, Rounds
from cvnet_engine.benchmarks.methods.method import REFERENCE
from cvnet_engine.benchmarks.throughput import bench
from cvnet_engine.benchmarks.throughput.bench import Configuration, is_plan, rates, speedup
from cvnet_engine.benchmarks.throughput.report import INDEXING, SEARCH
from cvnet_engine.benchmarks.throughput.worker_pool import BATCH, Spread
from cvnet_engine.cli import app
from cvnet_engine.commands.bench import run
from cvnet_engine.engine.bundle import Bundle, write_manifest
from cvnet_engine.engine.errors import CvnetError
from cvnet_engine.options import BenchOptions


class Pool:
    """Records its runs; the time of each file is its number."""

    def __init__(self, name, asked):
        self.seconds, self._name, self._asked = [], name, asked

    def run(self, files):
        self._asked.append(self._name)
        self.seconds += [float(len(self.seconds) + number) for number in range(len(files))]


def test_configurations_take_turns(tiny_bundle):
    asked, files = [], [Path("a"), Path("b")]
    configurations = [
        Configuration(Spread(1, 1, 1, 2), Pool("torch", asked), files[:1]),
        Configuration(Spread(1, 1, 1, 2), Pool("one", asked), files),
        Configuration(Spread(1, 2, 1, 1), Pool("two", asked), files),
    ]
    reference, *ours = rates(SEARCH, tiny_bundle, configurations)
    assert asked == ["torch", "one", "two"] * 4
    assert (reference.method, reference.speedup, reference.latencies_s) == (REFERENCE, None, (1, 2, 3))
    assert [r.spread for r in ours] == [c.spread for c in configurations[1:]]
    assert all(r.method == tiny_bundle.name and r.precision == "fp32" and len(r.latencies_s) == 6 for r in ours)
    for record in ours:
        pairs = zip(record.per_second.samples, reference.per_second.samples, strict=True)
        assert record.speedup == pytest.approx(speedup(record.per_second, reference.per_second))
        assert record.speedup.low <= min(a / b for a, b in pairs) + 1e-9


def test_a_speedup_is_that_of_the_rounds():
    ours, theirs = Interval.of([4.0, 2.0, 6.0]), Interval.of([2.0, 1.0, 1.0])
    assert speedup(ours, theirs) == (2, 2, 6)


def test_plans_take_no_batches(tiny_bundle, tmp_path):
    assert not is_plan(tiny_bundle)
    manifest = Bundle(tiny_bundle).manifest
    graphs = {name: replace(graph, backend="tensorrt") for name, graph in manifest.graphs.items()}
    for file in tiny_bundle.glob("*.onnx"):
        (tmp_path / file.name).symlink_to(file)
    write_manifest(replace(manifest, graphs=graphs), tmp_path)
    assert is_plan(tmp_path)


@pytest.mark.parametrize("change", [{"plot": Path("p.png")}, {"compiled": True}, {"compare": Path("old.json")}])
def test_options_that_do_not_go_together(change):
    with pytest.raises(CvnetError, match="leave out --plot, --compare and --compiled"):
        run(BenchOptions([Path("absent")], throughput=True, **change))


@pytest.mark.slow
def test_every_configuration_is_measured(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "ROUNDS", Rounds(warm_up=1, fewest=1, most=1))
    words = ["bench", "--throughput", "--bundle", bundle, "--sizes", "96x64", "--shortlists", "3", "--threads", "2"]
    files = ["--json", tmp_path / "t.json", "--markdown", tmp_path / "t.md"]
    done = CliRunner().invoke(app, [str(word) for word in (*words, *files)])
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "t.json").read_text())
    ways = [(r["work"], r["method"] == REFERENCE, r["batch"], r["streams"], r["processes"]) for r in content["records"]]
    spread = [(1, 1, 1), (BATCH, 1, 1), (1, 2, 1), (1, 1, 2)]
    assert ways == [
        (INDEXING, True, 1, 1, 1),
        *((INDEXING, False, *way) for way in spread),
        (SEARCH, True, 1, 1, 1),
        *((SEARCH, False, *way) for way in spread if way[0] == 1),
    ]
    assert all(r["per_second"] > 0 and 0 < r["p50_ms"] <= r["p99_ms"] for r in content["records"])
    assert [r["n"] for r in content["records"] if r["method"] != REFERENCE] == [4] * 7
    assert len(content["best"]) == 4
    assert "What cvnet-engine gets through" in (tmp_path / "t.md").read_text()
