"""The generated data sets: reproducible, in the revisitop layout, with labels that follow from the pictures."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import scenes
from scenes.__main__ import main
from scenes.dataset import SceneSet
from scenes.family import FAMILIES
from scenes.grounds import GROUNDS
from scenes.materials import MATERIALS
from scenes.ornaments import OVER_WINDOWS, UNDER_WINDOWS
from scenes.relief import Part, Relief
from scenes.roofs import ROOFS

TINY = SceneSet("tiny", seed=3, scenes=3, views=4, distractors=2, size=(96, 128))
PARTS = {"roof": ROOFS, "ground": GROUNDS, "under": UNDER_WINDOWS, "over": OVER_WINDOWS}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.write(TINY, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def truth(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "gnd_tiny.json").read_bytes())
    return content


def shape(path: Path) -> tuple[int, int, int]:
    picture = cv2.imread(str(path))
    assert picture is not None
    height, width, channels = picture.shape
    return height, width, channels


def test_same_seed_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    again = scenes.write(TINY, tmp_path)
    files = sorted(path.relative_to(root) for path in root.rglob("*.*"))
    assert len(files) == 3 * 4 + 2 + 3
    assert [path for path in files if (again / path).read_bytes() != (root / path).read_bytes()] == []


def test_the_shipped_demo_pictures_are_those_of_the_command():
    shipped = Path(scenes.__file__).parents[1] / "cvnet_engine" / "demo"
    assert json.loads((shipped / "scenes.json").read_text()) == json.loads(json.dumps(asdict(scenes.DEMO)))
    assert len(list((shipped / "jpg").iterdir())) == len(scenes.DEMO.numbers())
    assert sum(file.stat().st_size for file in shipped.rglob("*.*")) < 1.5e6
    for index, number in scenes.DEMO.numbers()[::20]:
        seed, size = scenes.DEMO.seed, scenes.DEMO.size
        rendered = scenes.render(scenes.build_scene(seed, index), scenes.choose_view(seed, index, number, size))
        picture = cv2.imread(str(shipped / "jpg" / f"scene{index:04d}_{number:02d}.jpg"))
        assert np.abs(rendered.astype(float) - picture).mean() < 5  # of 255: what JPEG changes


def test_other_seeds_give_other_pictures() -> None:
    one, other = (scenes.render(scenes.build_scene(s, 0), scenes.choose_view(s, 0, 0, TINY.size)) for s in (3, 4))
    assert one.shape != other.shape or not np.array_equal(one, other)


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
        assert shape(path) in ((96, 128, 3), (128, 96, 3))


def test_labels_are_disjoint_and_each_query_has_a_positive(truth: dict[str, Any]) -> None:
    owners = [name.split("_")[0] for name in truth["imlist"]]
    for query, gnd in zip(truth["qimlist"], truth["gnd"], strict=True):
        labelled = gnd["easy"] + gnd["hard"] + gnd["junk"]
        assert gnd["easy"] or gnd["hard"]
        assert sorted(labelled) == [row for row, owner in enumerate(owners) if owner == query.split("_")[0]]


def test_bbx_lies_inside_the_query(root: Path, truth: dict[str, Any]) -> None:
    for query, gnd in zip(truth["qimlist"], truth["gnd"], strict=True):
        height, width = shape(root / "jpg" / f"{query}.jpg")[:2]
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


@pytest.fixture
def unrenderable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("scenes.dataset.render", fail)


@pytest.mark.usefixtures("unrenderable")
def test_an_interrupted_write_leaves_no_ground_truth(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "tiny")
    with pytest.raises(KeyboardInterrupt):
        scenes.write(replace(TINY, seed=4), tmp_path)
    assert list((tmp_path / "tiny").glob("gnd_*")) == []


@pytest.mark.usefixtures("unrenderable")
def test_a_set_that_is_there_is_not_generated_again(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.*")}
    assert scenes.write(TINY, root.parent) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.*")} == before


@pytest.mark.usefixtures("unrenderable")
@pytest.mark.parametrize("gone", ["scenes.json", "gnd_tiny.json", "gnd_tiny.pkl", "jpg/scene0004_01.jpg"])
def test_a_set_that_lacks_a_file_is_generated_again(root: Path, tmp_path: Path, gone: str) -> None:
    shutil.copytree(root, tmp_path / "tiny")
    (tmp_path / "tiny" / gone).unlink()
    with pytest.raises(KeyboardInterrupt):
        scenes.write(TINY, tmp_path)


def test_another_set_of_the_name_replaces_the_first_and_nothing_else(tmp_path: Path) -> None:
    pair = replace(TINY, scenes=1, views=2, distractors=0)
    folder = scenes.write(pair, tmp_path) / "jpg"
    mine = {"holiday.jpg", "scene_of_crime.jpg", "scene0000_01.jpg.bak"}
    for name in mine:
        (folder / name).write_bytes(b"mine")
    scenes.write(replace(pair, views=1, distractors=1), tmp_path)
    assert {path.name for path in folder.iterdir()} == mine | {"scene0000_00.jpg", "scene0001_01.jpg"}
    assert json.loads((tmp_path / "tiny" / "scenes.json").read_bytes())["views"] == 1


def test_every_query_of_the_demo_has_easy_and_hard_positives() -> None:
    demo = scenes.DEMO
    for index in range(demo.scenes):
        building = scenes.build_scene(demo.seed, index)
        shots = (scenes.choose_view(demo.seed, index, number, demo.size) for number in range(demo.views))
        query, *others = (scenes.measure(building, shot, "") for shot in shots)
        assert {"easy", "hard"} <= {scenes.grade(query, other) for other in others}


@pytest.mark.parametrize("draw", [pytest.param(d, id=f"{k}-{n}") for k, p in PARTS.items() for n, d in p.items()])
def test_every_part_can_be_drawn(draw: Part) -> None:
    facade = scenes.build_scene(3, 0).main
    relief = Relief(facade.width_m, facade.height_m + 3.5)
    draw(relief, facade, np.random.default_rng(0))
    assert relief.cover.any()


def test_families_name_only_what_exists() -> None:
    for family in FAMILIES:
        assert set(family.materials) <= set(MATERIALS)
        assert set(family.roofs) <= set(ROOFS)
        assert set(family.grounds) <= set(GROUNDS)
        assert set(family.ornaments) <= {*UNDER_WINDOWS, *OVER_WINDOWS}


def test_a_set_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(scenes.SETS, "tiny", TINY)
    main("tiny", tmp_path)
    assert capsys.readouterr().out == f"{tmp_path / 'tiny'}\n"
    assert (tmp_path / "tiny" / "gnd_tiny.json").is_file()
    with pytest.raises(SystemExit, match="huge: no such scenes; expected one of demo, validation, test, tiny"):
        main("huge", tmp_path)
