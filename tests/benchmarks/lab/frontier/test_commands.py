"""The commands from their options to the files that they write, by engines that compute next to nothing."""

from __future__ import annotations

import contextlib
import json

import pytest
from typer.testing import CliRunner

from benchmarks.lab.frontier import __main__ as frontier
from benchmarks.lab.frontier import grid, times
from benchmarks.lab.frontier.__main__ import digest
from benchmarks.lab.frontier.accuracy_file import read
from cvnet_engine.benchmarks.latency.timing import Rounds
from cvnet_engine.cvnet import checkpoint
from cvnet_engine.engine.errors import DatasetError
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
def loaded(monkeypatch):
    """Loads of the checkpoint, which is a fake, as all else is that takes long."""
    loads: list[str] = []
    monkeypatch.setattr(checkpoint, "load", lambda weights, _depth: loads.append(weights))
    monkeypatch.setattr(checkpoint, "digest", lambda _: "digest")
    monkeypatch.setattr(frontier, "EngineCache", lambda *_: contextlib.nullcontext(FakeEngineCache()))
    digest.cache_clear()
    monkeypatch.setattr(grid, "CHEAPER", {"int8": {"coded:24": (384,)}, "bf16": {"coded:24": (384,)}})
    for module in (frontier, times):  # a processor without bf16, whatever this one is
        monkeypatch.setattr(module, "accelerated", lambda precision: precision != "bf16")
    monkeypatch.setattr(times, "SIDES_PX", (384,))
    monkeypatch.setattr(times, "PHOTO_PX", (96, 128))
    monkeypatch.setattr(times, "IMAGES", 4)
    monkeypatch.setattr(times, "IN_FULL", 2)
    monkeypatch.setattr(times, "ROUNDS", Rounds(warm_up=0, fewest=1, most=1))
    return loads


def run(*arguments):
    result = CliRunner().invoke(frontier.app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.usefixtures("loaded")
def test_what_another_machine_judged_stays_where_there_is_no_score(data, tmp_path, monkeypatch):
    common = ("--data-dir", data, "--dataset", "small", "--calibration", data / "small" / "jpg")
    here, elsewhere = ((*common, "--work", tmp_path / name) for name in ("here", "elsewhere"))
    judged = "--accuracy", tmp_path / "accuracy.json"
    with pytest.raises(DatasetError, match=r"^small, 384 px, fp32: scores are missing; run .* score'$"):
        run("judge", *here, *judged)
    run("score", *elsewhere)
    run("judge", *elsewhere, *judged)
    before = read(tmp_path / "accuracy.json", "digest")
    run("judge", *here, *judged)
    assert read(tmp_path / "accuracy.json", "digest").datasets == before.datasets
    monkeypatch.setattr(grid, "CHEAPER", {"int8": {"coded:8": (384,)}})
    monkeypatch.setattr(grid, "PUBLISHED", {})
    run("score", *here)
    run("judge", *here, *judged)
    after = read(tmp_path / "accuracy.json", "digest")
    (small,), (kept,) = after.datasets.values(), before.datasets.values()
    assert (small.published, small.stopped) == (kept.published, kept.stopped)
    assert small.points[: len(kept.points)] == kept.points
    assert {judged.point.maps for judged in small.points[len(kept.points) :]} == {"coded:8"}
    assert len(after.heads) == 3


def test_from_scores_and_times_to_a_report(data, loaded, tmp_path, monkeypatch):
    common = ("--data-dir", data, "--work", tmp_path / "work", "--calibration", data / "small" / "jpg")
    assert "small, 384 px, bf16: skipped" in run("score", *common, "--dataset", "small")
    assert "timing images of 384 px" in run("time", *common)
    assert "timing" not in run("time", *common)
    judged = ("--accuracy", tmp_path / "accuracy.json")
    with monkeypatch.context() as patch:
        patch.setattr(grid, "CHEAPER", grid.CHEAPER | {"int8": {"coded:24": (384,), "coded:8": (384,)}})
        told = run("judge", *common, "--dataset", "small", *judged)
    assert "small, 384 px, int8, cvnet, coded:24: judging" in told
    assert "small, 384 px, int8, superglobal, coded:8: not scored to the end" in told
    assert "small, 384 px, bf16, cvnet, coded:24: not scored to the end" in told
    work, out = ("--work", tmp_path / "work"), ("--out", tmp_path / "frontier.new")
    output = run("report", *work, *judged, *out, "--note", "Idle.")
    assert loaded == ["demo"]
    assert {path.name for path in tmp_path.glob("frontier*")} == {f"frontier.new.{s}" for s in ("json", "md", "svg")}
    assert (tmp_path / "frontier.new.md").read_text() in output
    report = json.loads((tmp_path / "frontier.new.json").read_text())
    assert report["note"] == "Idle."
    found = report["datasets"]["small"]
    assert found["Presets"][0]["label"] == "exact"
    smallest, *_ = found["Nothing takes fewer bytes an image and is better"]
    assert smallest["image_bytes"] < found["Presets"][0]["image_bytes"]
    assert all(point["query_s"] > 0 and point["index_s"] > 0 for points in found.values() for point in points)
