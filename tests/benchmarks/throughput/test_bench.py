"""A run takes all ways in turn, counts what is kept alone, and measures against PyTorch round by round."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cvnet_engine.benchmarks.latency.timing import Interval, Rounds
from cvnet_engine.benchmarks.methods.method import REFERENCE
from cvnet_engine.benchmarks.throughput import bench
from cvnet_engine.benchmarks.throughput.bench import Way, is_plan, measured, speedup
from cvnet_engine.benchmarks.throughput.indexing import INFO
from cvnet_engine.benchmarks.throughput.report import INDEXING, SEARCH
from cvnet_engine.benchmarks.throughput.worker_pool import BATCH, Job, Spread, WorkerPool
from cvnet_engine.cli import app
from cvnet_engine.commands.bench import run
from cvnet_engine.engine.bundle import Bundle, write_manifest
from cvnet_engine.engine.errors import BackendError, CvnetError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.images import load
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.options import BenchOptions
from tests.galleries import STAMP
from tests.hostile.tiny import write_bundle
from tests.pictures import photo


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


class Worker:
    """Notes when it was asked, and gives each file its number."""

    def __init__(self, name, asked):
        self.seconds, self._name, self._asked = [], name, asked

    def run(self, files):
        self._asked.append(self._name)
        self.seconds += [float(len(self.seconds) + number) for number in range(len(files))]


def test_ways_take_turns_and_the_warm_up_is_left_out(tiny):
    asked, files = [], [Path("a"), Path("b")]
    ways = [
        Way(Spread(1, 1, 1, 2), Worker("torch", asked), files[:1]),
        Way(Spread(1, 1, 1, 2), Worker("one", asked), files),
        Way(Spread(1, 2, 1, 1), Worker("two", asked), files),
    ]
    reference, *ours = measured(SEARCH, tiny, ways)
    assert asked == ["torch", "one", "two"] * 4
    assert (reference.method, reference.speedup, reference.latencies_s) == (REFERENCE, None, (1, 2, 3))
    assert [r.spread for r in ours] == [way.spread for way in ways[1:]]
    assert all(r.method == "bundle" and r.precision == "fp32" and len(r.latencies_s) == 6 for r in ours)
    for record in ours:
        pairs = zip(record.per_second.samples, reference.per_second.samples, strict=True)
        assert record.speedup == pytest.approx(speedup(record.per_second, reference.per_second))
        assert record.speedup.low <= min(a / b for a, b in pairs) + 1e-9


def test_a_speedup_is_that_of_the_rounds():
    ours, theirs = Interval.of([4.0, 2.0, 6.0]), Interval.of([2.0, 1.0, 1.0])
    assert speedup(ours, theirs) == (2, 2, 6)


def test_plans_take_no_batches(tiny, tmp_path):
    assert not is_plan(tiny)
    manifest = Bundle(tiny).manifest
    graphs = {name: replace(graph, backend="tensorrt") for name, graph in manifest.graphs.items()}
    for file in tiny.glob("*.onnx"):
        (tmp_path / file.name).symlink_to(file)
    write_manifest(replace(manifest, graphs=graphs), tmp_path)
    assert is_plan(tmp_path)


@pytest.mark.parametrize("spread", [Spread(1, 2, 2, 1), Spread(BATCH, 1, 1, 1)])
def test_a_pool_indexes_and_searches_every_file(tiny, tmp_path, spread):
    files = [photo(tmp_path / f"{seed}.jpg", seed=seed) for seed in range(5)]
    gallery = tmp_path / "gallery"
    with Engines.open(Bundle(tiny), 1) as engines, GalleryWriter(gallery, INFO) as writer:
        for file in files:
            writer.put(file, STAMP, half(engines.extract(load(file))))
    for job in (Job(tiny, spread), Job(tiny, spread, gallery, shortlist=2)):
        with WorkerPool(job) as pool:
            pool.run(files)
            assert len(pool.seconds) == len(files)
            pool.run(files[:1])
            assert len(pool.seconds) == len(files) + 1
        assert all(seconds > 0 for seconds in pool.seconds)


def half(features: Features) -> Features:
    return replace(features, maps=tuple(m.astype("float16") for m in features.maps))


def test_what_goes_wrong_in_a_worker_process_is_reported(tiny, tmp_path):
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    manifest = Bundle(tiny).manifest
    graphs = {name: replace(graph, precision="int4") for name, graph in manifest.graphs.items()}
    write_manifest(replace(manifest, graphs=graphs), tmp_path)
    with pytest.raises(BackendError, match="int4"):
        WorkerPool(Job(tmp_path, Spread(1, 1, 1, 1)))


@pytest.mark.parametrize("change", [{"plot": Path("p.png")}, {"compiled": True}, {"compare": Path("old.json")}])
def test_options_that_do_not_go_together(change):
    with pytest.raises(CvnetError, match="leave --plot, --compare and --compiled out"):
        run(BenchOptions([Path("absent")], throughput=True, **change))


@pytest.mark.slow
def test_the_whole_of_it(bundle, tmp_path, monkeypatch):
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
