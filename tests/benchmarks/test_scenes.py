"""The generated data sets: reproducible, in the revisitop layout, with labels that follow from the pictures."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import scenes
from benchmarks.scenes import SceneSet

TINY = SceneSet("tiny", seed=3, scenes=3, views=4, distractors=2, size=(96, 128))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.write(TINY, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def truth(root: Path) -> dict[str, Any]:
    return json.loads((root / "gnd_tiny.json").read_bytes())


def test_same_seed_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    again = scenes.write(TINY, tmp_path)
    files = sorted(path.relative_to(root) for path in root.rglob("*.*"))
    assert len(files) == 3 * 4 + 2 + 2
    assert [path for path in files if (again / path).read_bytes() != (root / path).read_bytes()] == []


def test_other_seeds_give_other_pictures() -> None:
    pictures = [scenes.render(scenes.build_scene(s, 0), scenes.choose_view(s, 0, 0, TINY.size)) for s in (3, 4)]
    assert pictures[0].shape != pictures[1].shape or not np.array_equal(*pictures)


def test_a_scene_does_not_depend_on_the_set_it_is_part_of() -> None:
    assert scenes.build_scene(3, 1) == scenes.build_scene(3, 1) != scenes.build_scene(3, 2)
    assert scenes.choose_view(3, 1, 0, TINY.size) != scenes.choose_view(3, 1, 1, TINY.size)


def test_pickle_and_json_hold_the_same(root: Path, truth: dict[str, Any]) -> None:
    assert pickle.loads((root / "gnd_tiny.pkl").read_bytes()) == truth


def test_every_listed_image_exists_at_the_set_size(root: Path, truth: dict[str, Any]) -> None:
    assert len(truth["imlist"]) == 3 * 3 + 2
    assert len(truth["qimlist"]) == len(truth["gnd"]) == 3
    assert not set(truth["imlist"]) & set(truth["qimlist"])
    assert {path.stem for path in root.glob("jpg/*.jpg")} == {*truth["imlist"], *truth["qimlist"]}
    for path in root.glob("jpg/*.jpg"):
        assert cv2.imread(str(path)).shape in ((96, 128, 3), (128, 96, 3))


def test_labels_are_disjoint_and_each_query_has_a_positive(truth: dict[str, Any]) -> None:
    owners = [name.split("_")[0] for name in truth["imlist"]]
    for query, gnd in zip(truth["qimlist"], truth["gnd"], strict=True):
        labelled = gnd["easy"] + gnd["hard"] + gnd["junk"]
        assert gnd["easy"] or gnd["hard"]
        assert sorted(labelled) == [row for row, owner in enumerate(owners) if owner == query.split("_")[0]]


def test_bbx_lies_inside_the_query(root: Path, truth: dict[str, Any]) -> None:
    for query, gnd in zip(truth["qimlist"], truth["gnd"], strict=True):
        height, width = cv2.imread(str(root / "jpg" / f"{query}.jpg")).shape[:2]
        x1, y1, x2, y2 = gnd["bbx"]
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert all(isinstance(bound, float) for bound in gnd["bbx"])


def test_bbx_is_tight_round_the_silhouette() -> None:
    building, shot = scenes.build_scene(3, 0), scenes.choose_view(3, 0, 0, TINY.size)
    seen = scenes.silhouette(building, shot)
    x1, y1, x2, y2 = (int(bound) for bound in scenes.measure(building, shot, "").bbx)
    assert seen[y1:y2, x1:x2].sum() == seen.sum() > 0
    assert all(edge.any() for edge in (seen[y1], seen[y2 - 1], seen[:, x1], seen[:, x2 - 1]))


def test_grades_follow_from_what_the_views_share() -> None:
    building = scenes.build_scene(3, 0)
    frontal = replace(
        scenes.choose_view(3, 0, 0, TINY.size), yaw_deg=0.0, fill=0.9, aim=(0.5, 0.5), roll_deg=0.0, occluders=()
    )

    def grade(**change: Any) -> str:
        query, other = (scenes.measure(building, shot, "") for shot in (frontal, replace(frontal, **change)))
        return scenes.grade(query, other)

    assert grade(yaw_deg=15.0, gain=0.7) == "easy"
    assert grade(yaw_deg=55.0) == "hard"
    assert grade(fill=0.35) == "hard"
    assert grade(fill=1.7, aim=(0.8, 0.7)) == "hard"
    assert grade(fill=0.08) == "junk"
    assert grade(fill=5.0) == "junk"


def test_an_occluder_hides_the_facade_behind_it() -> None:
    building = scenes.build_scene(3, 0)
    clear = replace(scenes.choose_view(3, 0, 0, TINY.size), occluders=())
    tree = scenes.Occluder("tree", building.main.width_m / 2, 4.0, seed=1)
    assert (
        scenes.silhouette(building, replace(clear, occluders=(tree,))).sum() < scenes.silhouette(building, clear).sum()
    )


def test_an_interrupted_write_leaves_no_ground_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes.write(TINY, tmp_path)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scenes, "render", fail)
    with pytest.raises(KeyboardInterrupt):
        scenes.write(TINY, tmp_path)
    assert list((tmp_path / "tiny").glob("gnd_*")) == []


@pytest.mark.parametrize("part", [*scenes.ROOFS, *scenes.GROUNDS, *scenes.UNDER_WINDOWS, *scenes.OVER_WINDOWS])
def test_every_part_can_be_drawn(part: str) -> None:
    facade = scenes.build_scene(3, 0).main
    relief = scenes.Relief(facade.width_m, facade.height_m + 3.5)
    parts = {**scenes.ROOFS, **scenes.GROUNDS, **scenes.UNDER_WINDOWS, **scenes.OVER_WINDOWS}
    parts[part](relief, facade, np.random.default_rng(0))
    assert relief.cover.any()


def test_families_name_only_what_exists() -> None:
    for family in scenes.FAMILIES:
        assert set(family.materials) <= set(scenes.MATERIALS)
        assert set(family.roofs) <= set(scenes.ROOFS)
        assert set(family.grounds) <= set(scenes.GROUNDS)
        assert set(family.ornaments) <= {*scenes.UNDER_WINDOWS, *scenes.OVER_WINDOWS}
