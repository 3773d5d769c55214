"""The generated data sets: reproducible, in the revisitop layout, with labels that follow from the images."""

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
from scenes.facade import FAMILIES
from scenes.grounds import GROUNDS
from scenes.materials import MATERIALS
from scenes.ornaments import OVER_WINDOWS, UNDER_WINDOWS
from scenes.relief import Relief
from scenes.roofs import ROOFS
from scenes.view import View

TINY = SceneSet("tiny", seed=3, scenes=3, views=4, distractors=2, size=(96, 128))
DEMO = Path(scenes.__file__).parents[1] / "cvnet_engine" / "demo"
PARTS = {"materials": MATERIALS, "roofs": ROOFS, "grounds": GROUNDS, "ornaments": UNDER_WINDOWS | OVER_WINDOWS}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.write(TINY, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def truth(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "gnd_tiny.json").read_bytes())
    return content


@pytest.fixture
def unrenderable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("scenes.dataset.render", fail)


def rendered(seed: int, index: int, number: int, size: tuple[int, int]) -> np.ndarray:
    return scenes.render(scenes.build_scene(seed, index), scenes.choose_view(seed, index, number, size))


def grade(query: View, other: View) -> str:
    return scenes.grade(*(scenes.measure(scenes.build_scene(3, 0), view, "") for view in (query, other)))


def test_the_command_writes_the_same_bytes_again(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(scenes.SETS, "tiny", TINY)
    main("tiny", tmp_path)
    assert capsys.readouterr().out == f"{tmp_path / 'tiny'}\n"
    files = sorted(path.relative_to(root) for path in root.rglob("*.*"))
    assert len(files) == 3 * 4 + 2 + 3
    assert [path for path in files if (tmp_path / "tiny" / path).read_bytes() != (root / path).read_bytes()] == []
    with pytest.raises(SystemExit, match="huge: no such scenes; expected one of demo, validation, test, tiny"):
        main("huge", tmp_path)


def test_the_shipped_demo_images_are_those_of_the_command():
    demo = scenes.DEMO
    assert json.loads((DEMO / "scenes.json").read_text()) == json.loads(json.dumps(asdict(demo)))
    assert len(list((DEMO / "jpg").iterdir())) == len(demo.numbers())
    assert sum(file.stat().st_size for file in DEMO.rglob("*.*")) < 1.5e6
    for index, number in demo.numbers()[::20]:
        picture = cv2.imread(str(DEMO / "jpg" / f"scene{index:04d}_{number:02d}.jpg"))
        difference = rendered(demo.seed, index, number, demo.size).astype(float) - picture
        assert np.abs(difference).mean() < 5  # of 255, by JPEG


def test_every_query_of_the_demo_has_easy_and_hard_positives():
    truth = json.loads((DEMO / "gnd_demo.json").read_bytes())
    assert len(truth["gnd"]) == scenes.DEMO.scenes
    assert all(gnd["easy"] and gnd["hard"] for gnd in truth["gnd"])


def test_seed_scene_and_view_change_the_image():
    images = [rendered(*numbers, TINY.size) for numbers in ((3, 0, 0), (4, 0, 0), (3, 1, 0), (3, 0, 1))]
    assert len({image.tobytes() for image in images}) == 4


def test_every_listed_image_exists_at_the_set_size(root, truth):
    assert pickle.loads((root / "gnd_tiny.pkl").read_bytes()) == truth
    assert len(truth["imlist"]) == 3 * 3 + 2
    assert len(truth["qimlist"]) == len(truth["gnd"]) == 3
    names = [*truth["imlist"], *truth["qimlist"]]
    assert sorted(path.stem for path in root.glob("jpg/*.jpg")) == sorted(names)
    for path in root.glob("jpg/*.jpg"):
        assert cv2.imread(str(path)).shape in ((96, 128, 3), (128, 96, 3))


def test_every_view_of_a_query_has_one_label(truth):
    owners = [name.split("_")[0] for name in truth["imlist"]]
    for query, gnd in zip(truth["qimlist"], truth["gnd"], strict=True):
        labelled = gnd["easy"] + gnd["hard"] + gnd["junk"]
        assert gnd["easy"] or gnd["hard"]
        assert sorted(labelled) == [row for row, owner in enumerate(owners) if owner == query.split("_")[0]]


def test_bbx_is_tight_round_the_silhouette(truth):
    for index, gnd in enumerate(truth["gnd"]):
        assert all(isinstance(bound, float) for bound in gnd["bbx"])
        x1, y1, x2, y2 = map(int, gnd["bbx"])
        seen = scenes.silhouette(scenes.build_scene(3, index), scenes.choose_view(3, index, 0, TINY.size))
        assert seen[y1:y2, x1:x2].sum() == seen.sum() > 0
        assert all(edge.any() for edge in (seen[y1], seen[y2 - 1], seen[:, x1], seen[:, x2 - 1]))


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({"yaw_deg": 15.0, "gain": 0.7}, "easy"),
        ({"yaw_deg": 55.0}, "hard"),
        ({"fill": 0.35}, "hard"),
        ({"fill": 1.7, "aim": (0.8, 0.7)}, "hard"),
        ({"fill": 0.08}, "junk"),
        ({"fill": 5.0}, "junk"),
    ],
)
def test_grades_follow_from_what_two_views_share(change, label):
    view = scenes.choose_view(3, 0, 0, TINY.size)
    frontal = replace(view, yaw_deg=0.0, fill=0.9, aim=(0.5, 0.5), roll_deg=0.0, occluders=())
    assert grade(frontal, replace(frontal, **change)) == label


def test_an_occluder_hides_the_facade_behind_it():
    building, view = scenes.build_scene(3, 0), scenes.choose_view(3, 0, 0, TINY.size)
    tree = scenes.Occluder("tree", building.main.width_m / 2, 4.0, seed=1)
    hidden, clear = (scenes.silhouette(building, replace(view, occluders=them)).sum() for them in ((tree,), ()))
    assert hidden < clear


@pytest.mark.usefixtures("unrenderable")
def test_an_interrupted_write_leaves_no_ground_truth(root, tmp_path):
    shutil.copytree(root, tmp_path / "tiny")
    with pytest.raises(KeyboardInterrupt):
        scenes.write(replace(TINY, seed=4), tmp_path)
    assert list((tmp_path / "tiny").glob("gnd_*")) == []


@pytest.mark.usefixtures("unrenderable")
@pytest.mark.parametrize("gone", ["scenes.json", "gnd_tiny.json", "gnd_tiny.pkl", "jpg/scene0004_01.jpg"])
def test_only_an_incomplete_set_is_generated_again(root, tmp_path, gone):
    shutil.copytree(root, tmp_path / "tiny")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "tiny").rglob("*.*")}
    assert scenes.write(TINY, tmp_path) == tmp_path / "tiny"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "tiny").rglob("*.*")} == before
    (tmp_path / "tiny" / gone).unlink()
    with pytest.raises(KeyboardInterrupt):
        scenes.write(TINY, tmp_path)


def test_another_set_of_the_name_replaces_the_first_and_nothing_else(tmp_path):
    pair = replace(TINY, scenes=1, views=2, distractors=0)
    folder = scenes.write(pair, tmp_path) / "jpg"
    mine = {"holiday.jpg", "scene_of_crime.jpg", "scene0000_01.jpg.bak"}
    for name in mine:
        (folder / name).write_bytes(b"mine")
    scenes.write(replace(pair, views=1, distractors=1), tmp_path)
    assert {path.name for path in folder.iterdir()} == mine | {"scene0000_00.jpg", "scene0001_01.jpg"}
    assert json.loads((tmp_path / "tiny" / "scenes.json").read_bytes())["views"] == 1


def test_every_part_of_a_family_exists_and_can_be_drawn():
    facade = scenes.build_scene(3, 0).main
    for kind, table in PARTS.items():
        assert {part for family in FAMILIES for part in family[kind].split()} == set(table)
        for name, draw in table.items() if kind != "materials" else ():
            relief = Relief(facade.width_m, facade.height_m + 3.5)
            draw(relief, facade, np.random.default_rng(0))
            assert relief.cover.any(), name
