"""The frontier's commands from their options to their files, with fake engines."""

from __future__ import annotations

import contextlib
import json

import pytest
from typer.testing import CliRunner

from benchmarks.lab.frontier import __main__ as frontier
from benchmarks.lab.frontier import grid, scores, times
from benchmarks.lab.frontier.accuracy import AccuracyFile
from cvnet_engine.benchmarks.latency.timing import Rounds
from cvnet_engine.cvnet import checkpoint
from cvnet_engine.engine.gallery.map_codecs import HalfCodec
from tests.benchmarks.lab.frontier.fakes import FakeEngineCache
from tests.pictures import photo

IMAGES = 4
TRUTH = {"bbx": [0, 0, 130, 125], "easy": [1], "hard": [2], "junk": [0]}


@pytest.fixture
def data(tmp_path):
    """A data set of two queries."""
    folder = tmp_path / "data" / "small" / "jpg"
    folder.mkdir(parents=True)
    names = [photo(folder / f"{row}.jpg", 140, 200, seed=row).stem for row in range(IMAGES + 2)]
    truth = {"imlist": names[:IMAGES], "qimlist": names[IMAGES:], "gnd": [TRUTH, TRUTH]}
    (folder.parent / "gnd_small.json").write_text(json.dumps(truth))
    return folder.parent.parent


@pytest.fixture
def engines(monkeypatch):
    """Fake engines, in place of everything that takes long."""
    fakes = FakeEngineCache()
    monkeypatch.setattr(checkpoint, "load", lambda *_: None)
    monkeypatch.setattr(checkpoint, "digest", lambda _: "digest")
    monkeypatch.setattr(frontier, "EngineCache", lambda *_: contextlib.nullcontext(fakes))
    frontier.digest.cache_clear()
    monkeypatch.setattr(scores, "fit_codec", lambda *_: HalfCodec())
    monkeypatch.setattr(grid, "CHEAPER", {"int8": {"coded:24": (384,)}, "bf16": {"coded:24": (384,)}})
    for module in (frontier, times):  # a processor without bf16, whatever this one is
        monkeypatch.setattr(module, "accelerated", lambda precision: precision != "bf16")
    monkeypatch.setattr(times, "SIDES_PX", (384,))
    monkeypatch.setattr(times, "PHOTO_PX", (96, 128))
    monkeypatch.setattr(times, "IMAGES", 4)
    monkeypatch.setattr(times, "IN_FULL", 2)
    monkeypatch.setattr(times, "ROUNDS", Rounds(warm_up=0, fewest=1, most=1))
    return fakes


def run(*arguments):
    result = CliRunner().invoke(frontier.app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_from_a_data_set_to_a_report(data, engines, tmp_path, monkeypatch):
    common = ("--data-dir", data, "--calibration", data / "small" / "jpg", "--accuracy", tmp_path / "accuracy.json")
    elsewhere, here = (("--work", tmp_path / name) for name in ("elsewhere", "here"))
    told = run("judge", *common, *elsewhere, "--dataset", "small")
    assert "skipped, because this processor lacks their instructions: bf16" in told
    before = AccuracyFile.read(tmp_path / "accuracy.json", "digest")
    (kept,) = before.datasets.values()
    assert {(judged.point.precision, judged.point.maps) for judged in kept} == {
        ("fp32", "float16"),
        ("int8", "coded:24"),
    }
    runs = engines.runs
    run("judge", *common, *elsewhere, "--dataset", "small")
    assert engines.runs == runs
    assert AccuracyFile.read(tmp_path / "accuracy.json", "digest").datasets == before.datasets

    monkeypatch.setattr(grid, "CHEAPER", {"int8": {"coded:8": (384,)}})
    run("judge", *common, *here, "--dataset", "small")
    after = AccuracyFile.read(tmp_path / "accuracy.json", "digest")
    (small,) = after.datasets.values()
    assert small[: len(kept)] == kept
    assert {judged.point.maps for judged in small[len(kept) :]} == {"coded:8"}
    assert len(after.heads) == 3

    out = ("--out", tmp_path / "frontier.new", "--note", "Idle.")
    output = run("report", *common, *here, *out)
    assert "timing images of 384 px" in output
    assert {path.name for path in tmp_path.glob("frontier*")} == {f"frontier.new.{s}" for s in ("json", "md", "svg")}
    assert (tmp_path / "frontier.new.md").read_text() in output
    report = json.loads((tmp_path / "frontier.new.json").read_text())
    assert report["note"] == "Idle."
    found = report["datasets"]["small"]
    assert found["Presets"][0]["label"] == "exact"
    smallest, *_ = found["Pareto frontier of accuracy and bytes per image"]
    assert smallest["image_bytes"] < found["Presets"][0]["image_bytes"]
    assert all(point["query_s"] > 0 and point["index_s"] > 0 for points in found.values() for point in points)
