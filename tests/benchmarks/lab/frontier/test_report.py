"""Points kept for the report, and times composed of stages."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from benchmarks.lab.frontier import times as timing
from benchmarks.lab.frontier.accuracy import Accuracy, AccuracyFile, loss, with_losses
from benchmarks.lab.frontier.grid import RERANK_FULL, Point
from benchmarks.lab.frontier.plot import draw
from benchmarks.lab.frontier.report import Costed, costed, from_json, markdown, pareto, presets, to_json
from benchmarks.lab.frontier.times import Times
from cvnet_engine.benchmarks.accuracy.journal import Journal
from cvnet_engine.engine.errors import DatasetError
from cvnet_engine.engine.geometry import IMAGE_SCALES
from cvnet_engine.engine.presets import PRESETS, Preset
from tests.benchmarks.lab.frontier.fakes import FakeEngineCache

EXACT = Point.of_preset(PRESETS["exact"], 1024)
HEAD = {"command": "the command", "date": "2026-11-29", "machine": {"cpu": "a processor"}}
JUDGED = [{"machine": {"cpu": "another processor"}, "date": "2026-11-28", "command": f"judge {n}"} for n in (1, 2)]


def point(m=50.0, query_s=1.0, image_bytes=1000.0, lost=0.0, index_s=0.1, candidate_s=0.004, **changes):
    means = {"E": 80.0, "M": m, "H": 30.0}
    return Costed(replace(EXACT, **changes), means, (lost, 0.25), query_s, index_s, candidate_s, image_bytes)


def test_points_that_another_beats_are_not_on_the_frontier():
    slow, quick, beaten, equal = point(50, 3.0), point(40, 1.0), point(39, 2.0), point(40, 1.0)
    assert pareto([slow, beaten, quick, equal], lambda c: c.query_s) == [quick, slow]
    large, small = point(40, 1.0, 2000), point(40, 1.0, 1000)
    assert pareto([large, small], lambda c: c.query_s) == [small]
    slow, quick = point(40, 2.0, 1000), point(40, 1.0, 1000)
    assert pareto([slow, quick], lambda c: c.image_bytes) == [quick]


def test_loss_is_a_mean_over_queries_with_its_standard_error():
    assert loss([50.0, 70.0], [49.0, 67.0]) == (2.0, 1.0)
    other = replace(EXACT, rerank_full=0)
    figures = {EXACT: {s: [50.0, 60.0] for s in "EMH"}, other: {s: [49.0, 60.0] for s in "EMH"}}
    first, second = with_losses(figures, EXACT)
    assert (first.loss, second.loss) == ((0.0, 0.0), (0.5, 0.5))
    assert second.means["M"] == 54.5


def test_presets_are_points_of_the_grid_at_any_image_size():
    assert Point("cvnet", IMAGE_SCALES, 1024, "fp32", "float16", "cvnet", 100, None) == EXACT
    assert Point.of_preset(Preset(max_side_px=768), 512).max_side_px == 512
    assert Point.of_preset(Preset(max_side_px=None), 512).max_side_px == 512


def test_name_says_what_is_not_as_published():
    assert str(EXACT) == "1024 px fp32 float16, best 100"
    changed = replace(EXACT, scales=(0.7071, 1.0), method="both", rerank_full=10, descriptor="superglobal")
    assert str(changed) == "superglobal 1024 px fp32 float16, 2 scales, best 100 by both, 10 in full"
    assert str(replace(EXACT, shortlist=0)) == "1024 px fp32 float16, no reranking"


TIMES = Times(
    {
        ("decode", 1024): (0.01,) * 3,
        ("describe", 1024, "fp32", "cvnet", 0.7071): (0.5,) * 3,
        ("describe", 1024, "fp32", "cvnet", 1.0): (1.0,) * 3,
        ("describe", 1024, "fp32", "cvnet", 1.4142): (2.0,) * 3,
        ("global",): (0.001,) * 3,
        ("refine", 400): (0.02,) * 3,
        ("pooled pair", 1024, "fp32", "float16"): (0.01,) * 3,
        ("full pair", 1024, "fp32", "float16"): (0.1,) * 3,
        ("store", 1024, "float16"): (0.005,) * 3,
        ("bytes", 1024, "float16"): (2.7e6,) * 3,
    }
)


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 3.511 + 10.0),
        ({"shortlist": 0}, 3.511),
        ({"rerank_full": 0}, 3.511 + 1.0),
        ({"rerank_full": 10, "scales": (1.0,)}, 1.011 + 1.0 + 1.0),
        ({"shortlist": 20, "rerank_full": 50}, 3.511 + 2.0),
        ({"method": "both"}, 3.531 + 10.0),
    ],
)
def test_query_time_is_the_sum_of_its_stages(changes, seconds):
    assert TIMES.query_s(replace(EXACT, **changes)) == pytest.approx(seconds)


def test_costs_of_reranking_and_of_an_image():
    assert TIMES.rerank_s(EXACT) == pytest.approx(10.0)
    assert TIMES.rerank_s(replace(EXACT, shortlist=0)) == 0
    assert TIMES.index_s(EXACT) == pytest.approx(3.515)
    assert TIMES.image_bytes(EXACT) == 2.7e6


def test_stages_are_timed_again_if_the_grid_has_changed(monkeypatch):
    monkeypatch.setattr(timing, "SIDES_PX", (64,))
    runs = []

    def measured(*_):
        runs.append(tried)
        return {("store", maps): (1.0,) * 3 for maps in tried["fp32"]}

    monkeypatch.setattr(timing, "measured", measured)
    monkeypatch.setattr(timing, "arithmetic", lambda _: tried)
    with Journal(None) as journal:
        for maps in (("float16",), ("float16", "coded:8"), ("float16", "coded:8")):
            tried = {"fp32": maps}
            taken = timing.take(journal, ("model",), lambda: contextlib.nullcontext(FakeEngineCache()))
            assert set(taken.figures) == {("store", kind) for kind in maps}
    assert runs == [{"fp32": ("float16",)}, {"fp32": ("float16", "coded:8")}]


def test_points_whose_stages_were_not_timed_are_left_out():
    figures = {at: {s: [50.0, 60.0] for s in "EMH"} for at in (EXACT, replace(EXACT, precision="bf16"))}
    assert [c.point for c in costed(with_losses(figures, EXACT), TIMES)] == [EXACT]


def grid():
    """A few points: every `rerank_full` at full size, and the presets."""
    points = [point(50 - number, 9 - number, rerank_full=full) for number, full in enumerate(RERANK_FULL)]
    others = {Point.of_preset(preset, 1024) for preset in PRESETS.values()} - {EXACT}
    return points + [replace(points[0], point=other) for other in others]


def test_report_shows_every_part_of_every_data_set():
    content = to_json(HEAD, JUDGED, "idle", TIMES, {"small": grid()})
    text = markdown(content)
    assert "- another processor; 2026-11-28; `judge 1`\n- another processor; 2026-11-28; `judge 2`\n" in text
    assert all(f"**{title}**" in text for title in content["datasets"]["small"])
    assert "| exact: 1024 px fp32 float16, best 100 | 50.00 | 0.00 ± 0.25 | 9.000 | 0.100 | 1 |" in text
    assert content["seconds"]["pooled pair 1024 fp32 float16"] == (0.01,) * 3
    assert "bytes 1024 float16" not in content["seconds"]
    assert from_json(content["datasets"]["small"]["Presets"]) == presets(grid())
    assert presets(grid()).keys() == PRESETS.keys()
    assert len(content["datasets"]["small"]["Coarse-to-fine reranking, all else as published"]) == len(RERANK_FULL)


def test_accuracies_are_read_as_they_were_written(tmp_path):
    points = [
        Accuracy(EXACT, {"E": 80.5, "M": 50.0, "H": 30.0}, (0.0, 0.0)),
        Accuracy(replace(EXACT, rerank_full=10, scales=(1.0,)), {"E": 80.0, "M": 49.1234, "H": 30.0}, (0.8766, 0.25)),
    ]
    found = AccuracyFile([{"command": "judge"}], "a digest", {"small": points})
    file = tmp_path / "accuracy.json"
    file.write_text(text := found.to_json())
    assert AccuracyFile.read(file, "a digest") == found
    assert len(text.splitlines()) == 1 + len(points)
    with pytest.raises(DatasetError, match="of model a digest, expected another"):
        AccuracyFile.read(file, "another")


@pytest.mark.parametrize(
    "content", [None, "", "{}", "[]", '{"datasets": {"small": 3}}', '{"datasets": {"small": {"points": []}}}']
)
def test_other_files_are_refused_as_accuracies(tmp_path, content):
    if content is not None:
        (tmp_path / "other.json").write_text(content)
    with pytest.raises(DatasetError, match="frontier judge"):
        AccuracyFile.read(tmp_path / "other.json", "a digest")


def test_figure_is_drawn():
    svg = draw("small", grid(), presets(grid()))
    assert svg.lstrip().startswith(b"<?xml")
    assert len(svg) < 1_000_000
