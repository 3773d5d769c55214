"""Points kept and chosen for the report, and times composed of stages."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from benchmarks.lab import readme
from benchmarks.lab.frontier import accuracy_file
from benchmarks.lab.frontier import times as timing
from benchmarks.lab.frontier.accuracy_file import Accuracies, AccuracyFile
from benchmarks.lab.frontier.grid import Point
from benchmarks.lab.frontier.plot import draw, figure_of
from benchmarks.lab.frontier.points import Costed, Judged, costed, judgements, loss, name, pareto
from benchmarks.lab.frontier.report import FINE_ALONE, FrontierReport, at, chosen, parts, presets
from benchmarks.lab.frontier.times import Times
from cvnet_engine.benchmarks.accuracy.journal import Journal
from cvnet_engine.engine.errors import DatasetError
from cvnet_engine.engine.geometry import IMAGE_SCALES
from cvnet_engine.engine.presets import PRESETS, Preset
from tests.benchmarks.lab.frontier.fakes import FakeEngineCache

EXACT = at(PRESETS["exact"], 1024)
JUDGED = [{"machine": {"cpu": "another processor"}, "date": "2026-11-28", "command": f"judge {n}"} for n in (1, 2)]


def point(m=50.0, query_s=1.0, image_bytes=1000.0, lost=0.0, index_s=0.1, candidate_s=0.004, **changes):
    means = {"E": 80.0, "M": m, "H": 30.0}
    return Costed(replace(EXACT, **changes), means, (lost, 0.25), query_s, index_s, candidate_s, image_bytes)


def judged_one(**changes):
    return Judged(replace(EXACT, **changes), {"E": 80.0, "M": 49.1234, "H": 30.0}, (0.8766, 0.25))


def test_what_another_point_beats_is_not_on_the_frontier():
    slow, quick, beaten, equal = point(50, 3.0), point(40, 1.0), point(39, 2.0), point(40, 1.0)
    assert pareto([slow, beaten, quick, equal], lambda c: c.query_s) == [quick, slow]


def test_of_points_equal_in_cost_and_accuracy_the_smallest_and_quickest_is_on_the_frontier():
    large, small = point(40, 1.0, 2000), point(40, 1.0, 1000)
    assert pareto([large, small], lambda c: c.query_s) == [small]
    slow, quick = point(40, 2.0, 1000), point(40, 1.0, 1000)
    assert pareto([slow, quick], lambda c: c.image_bytes) == [quick]


def test_loss_is_the_mean_over_queries_with_its_standard_error():
    assert loss([50.0, 70.0], [49.0, 67.0]) == (2.0, 1.0)


def test_of_points_about_as_quick_the_smallest_is_chosen():
    quickest, smaller, slower = point(60, 0.300, 2000), point(60, 0.314, 1000), point(60, 0.320, 500)
    assert chosen([quickest, smaller, slower])["balanced"] == smaller


def test_the_quickest_that_meets_all_aims_is_chosen():
    points = [
        point(query_s=0.2, lost=2.0),
        point(query_s=0.3, lost=1.0, index_s=0.5),
        point(query_s=0.34, lost=1.2, index_s=0.1),
        point(query_s=0.9, lost=0.4, index_s=0.1),
        point(query_s=0.1, lost=0.0, descriptor="superglobal"),
        point(query_s=0.1, lost=0.0, shortlist=20),
        point(query_s=0.8, lost=0.4, candidate_s=0.005),
    ]
    assert chosen(points) == {"balanced": points[3], "fast": points[2]}


def test_where_none_meets_its_aim_balanced_is_accurate_and_fast_the_best_in_a_third_of_its_time():
    points = [
        point(50, query_s=2.1, lost=0.4),
        point(50, query_s=3.0, lost=0.0),
        point(45, query_s=0.2, lost=5.4),
        point(46.0, query_s=0.7, lost=4.4, image_bytes=2000),
        point(45.6, query_s=0.6, lost=4.8, image_bytes=1000),
        point(47, query_s=0.8, lost=3.4),
    ]
    assert chosen(points) == {"balanced": points[0], "fast": points[4]}
    assert chosen(points[:2]) == {"balanced": points[0], "fast": points[0]}


def test_presets_are_points_of_the_grid_on_images_of_any_size():
    assert Point("cvnet", IMAGE_SCALES, 1024, "fp32", "float16", "cvnet", 100, None) == EXACT
    assert at(Preset(max_side_px=768), 512).max_side_px == 512
    assert at(Preset(max_side_px=None), 512).max_side_px == 512


def test_a_name_tells_what_is_not_as_published():
    assert name(EXACT) == "1024 px fp32 float16, best 100"
    changed = replace(EXACT, scales=(0.7071, 1.0), method="both", fine=10, descriptor="superglobal")
    assert name(changed) == "superglobal 1024 px fp32 float16, 2 scales, best 100 by both, 10 in full"


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
        ({"fine": 0}, 3.511 + 1.0),
        ({"fine": 10, "scales": (1.0,)}, 1.011 + 1.0 + 1.0),
        ({"shortlist": 20, "fine": 50}, 3.511 + 2.0),
        ({"method": "both"}, 3.531 + 10.0),
    ],
)
def test_seconds_of_a_query_are_made_up_of_its_stages(changes, seconds):
    assert TIMES.query_s(replace(EXACT, **changes)) == pytest.approx(seconds)


def test_reranking_is_what_follows_global_search():
    assert TIMES.rerank_s(EXACT) == pytest.approx(10.0)
    assert TIMES.rerank_s(replace(EXACT, shortlist=0)) == 0


def test_costs_of_an_image():
    assert TIMES.index_s(EXACT) == pytest.approx(3.515)
    assert TIMES.image_bytes(EXACT) == 2.7e6


def test_stages_are_timed_anew_where_the_grid_has_changed(monkeypatch):
    monkeypatch.setattr(timing, "SIDES_PX", (64,))
    monkeypatch.setattr(timing, "measured", lambda *_: {("store", maps): (1.0,) * 3 for maps in tried["fp32"]})
    monkeypatch.setattr(timing, "arithmetic", lambda _: tried)
    with Journal(None) as journal:
        for maps in (("float16",), ("float16", "int8")):
            tried = {"fp32": maps}
            timing.take(journal, FakeEngineCache(), ("model",), lambda _: None)
            assert set(timing.taken(journal, ("model",)).figures) == {("store", kind) for kind in maps}
        with pytest.raises(DatasetError, match="frontier time"):
            timing.taken(journal, ("another model",))


def grid():
    """A few points: every number of pairs in full at full size, and the presets' places."""
    points = [point(50 - number, 9 - number, fine=fine) for number, fine in enumerate(FINE_ALONE)]
    named = [replace(points[0], point=at(preset, 1024)) for preset in PRESETS.values() if at(preset, 1024) != EXACT]
    return points + named


def test_a_report_has_what_matters_of_every_data_set():
    report = FrontierReport(
        "the command",
        "2026-11-29",
        {"cpu": "a processor"},
        JUDGED,
        "idle",
        TIMES,
        {"small": grid()},
        {"small": {1: {100: 58.84}}},
    )
    text = report.markdown()
    assert "a processor; 2026-11-29; `the command`" in text
    assert "- another processor; 2026-11-28; `judge 1`\n- another processor; 2026-11-28; `judge 2`\n" in text
    for title in parts(grid()):
        assert f"{title}:\n" in text
    cells = "80.00 | 50.00 | 30.00 | +0.00 ± 0.25 | 9.000 | 4.00 | 0.100 | 1"
    assert f"| exact | 1024 px fp32 float16, best 100 | {cells} |" in text
    assert "| k | 100 |" in text
    assert "| 1 | 58.8 |" in text
    content = report.to_json()
    assert content["seconds"]["pooled pair 1024 fp32 float16"] == (0.01,) * 3
    assert "bytes 1024 float16" not in content["seconds"]
    assert {row["label"] for row in content["datasets"]["small"]["Presets"]} == set(PRESETS)


def test_documents_have_presets_and_the_figure_once_there_are_any(tmp_path):
    report = FrontierReport(
        "the command",
        "2026-11-29",
        {"cpu": "a processor", "cpu_features": ["avx2"]},
        JUDGED,
        "Idle.",
        TIMES,
        {"demo": grid()},
        {"demo": {}},
    )
    (tmp_path / "frontier.json").write_text(json.dumps(report.to_json()))
    row = "| exact | 1024 px fp32 float16, best 100 | 80.00 | 50.00 | 30.00 | +0.00 ± 0.25 |"
    text = readme.document(tmp_path)
    assert row in text
    assert "**generated demo scenes**" in text
    assert "](../benchmarks/results/frontier.svg)" in text


def test_every_point_is_held_against_the_published_one():
    other = replace(EXACT, fine=0)
    figures = {EXACT: {s: [50.0, 60.0] for s in "EMH"}, other: {s: [49.0, 60.0] for s in "EMH"}}
    first, second = judgements(figures, figures[EXACT]["M"])
    assert (first.loss, second.loss) == ((0.0, 0.0), (0.5, 0.5))
    assert second.means["M"] == 54.5


def test_points_whose_stages_were_not_timed_are_left_out():
    figures = {at: {s: [50.0, 60.0] for s in "EMH"} for at in (EXACT, replace(EXACT, precision="bf16"))}
    assert [c.point for c in costed(judgements(figures, [50.0, 60.0]), TIMES)] == [EXACT]


def test_accuracies_are_read_as_they_were_written(tmp_path):
    points = [Judged(EXACT, {"E": 80.5, "M": 50.0, "H": 30.0}, (0.0, 0.0)), judged_one(fine=10, scales=(1.0,))]
    small = Accuracies([40.0, 60.0], {1: {100: 58.84, 50: 40.0}}, points)
    found = AccuracyFile([{"command": "judge"}], "a digest", {"small": small})
    file = tmp_path / "accuracy.json"
    file.write_text(text := found.to_json())
    assert accuracy_file.read(file, "a digest") == found
    assert len(text.splitlines()) == 1 + len(points)
    with pytest.raises(DatasetError, match="of model a digest, not another"):
        accuracy_file.read(file, "another")


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"datasets": {"small": 3}}', '{"datasets": {"small": {"points": []}}}']
)
def test_another_file_is_no_accuracies(tmp_path, content):
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(DatasetError, match="frontier judge"):
        accuracy_file.read(tmp_path / "other.json", "a digest")
    with pytest.raises(DatasetError, match="frontier judge"):
        accuracy_file.read(tmp_path / "missing.json", "a digest")


def test_the_figure_can_be_drawn():
    svg = draw("small", grid(), presets(grid()), ".svg")
    assert svg.lstrip().startswith(b"<?xml")
    assert len(svg) < 1_000_000


def test_numbers_of_a_crowded_frontier_are_apart():
    crowded = [point(40 + step / 5, 1.05**step, image_bytes=1000 * 1.05**step) for step in range(60)]
    figure = figure_of("small", crowded, {"exact": crowded[-1]})
    for panel in figure.axes:
        name, *numbers = panel.texts
        assert name.get_text() == "exact"
        assert numbers[0].get_text() == "1"
        assert 10 < len(numbers) < 40
        boxes = [text.get_window_extent() for text in numbers]
        assert not any(box.overlaps(other) for box, other in pairwise(boxes))
