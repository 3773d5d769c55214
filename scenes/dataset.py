"""Set of scenes on disk, in the revisitop layout."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2

from cvnet_engine.engine.files import write_atomically
from scenes.labels import Sight, ground_truth, measure
from scenes.photograph import render
from scenes.scene import build_scene
from scenes.view import choose_view

JPEG_QUALITY = 85
DISTRACTOR_VIEW = 1  # a mild view
IMAGE = re.compile(r"scene\d{4,}_\d{2,}\.jpg")  # matches the names of `_image_name`


@dataclass(frozen=True)
class SceneSet:
    """A data set to generate.

    It has `scenes` x `views` images, of which the first view of each scene is a query, and one image per distractor.
    """

    name: str
    seed: int
    scenes: int
    views: int
    distractors: int
    size: tuple[int, int]  # (height, width) px; a portrait view swaps them

    def numbers(self) -> list[tuple[int, int]]:
        """Return (scene, view) of every image: all views of the scenes, then one view per distractor."""
        scenes = [(index, number) for index in range(self.scenes) for number in range(self.views)]
        return scenes + [(self.scenes + extra, DISTRACTOR_VIEW) for extra in range(self.distractors)]


# Seeds differ, so no building is in two of these sets.
TRAINING = SceneSet("training", seed=101, scenes=740, views=5, distractors=0, size=(360, 480))
UNSEEN = SceneSet("unseen", seed=404, scenes=600, views=5, distractors=0, size=(360, 480))  # trains the reranker's head
VALIDATION = SceneSet("validation", seed=202, scenes=40, views=6, distractors=60, size=(360, 480))
TEST = SceneSet("test", seed=303, scenes=50, views=5, distractors=50, size=(360, 480))
CALIBRATION = SceneSet("calibration", seed=505, scenes=12, views=4, distractors=0, size=(480, 640))
DEMO = SceneSet("demo", seed=31, scenes=10, views=5, distractors=8, size=(240, 320))
SETS = {scenes.name: scenes for scenes in (DEMO, VALIDATION, TEST)}  # sets for evaluation


def write(scenes: SceneSet, data_dir: Path) -> Path:
    """Generate a set, unless it is already there; returns its folder, DATA_DIR/NAME.

    Images go to `jpg/`, the ground truth (`imlist`, `qimlist`, `gnd`) to `gnd_NAME.json` and `gnd_NAME.pkl` with equal
    content, the parameters of the set to `scenes.json`. The ground truth is written last, so a folder that has it is
    complete. Images of another set of the same name are removed; other files in `jpg/` are kept.
    """
    root = data_dir / scenes.name
    marker, pickled, plain = root / "scenes.json", root / f"gnd_{scenes.name}.pkl", root / f"gnd_{scenes.name}.json"
    parameters = json.dumps(asdict(scenes), indent=1).encode()
    pictures = [root / "jpg" / f"{_image_name(*numbers)}.jpg" for numbers in scenes.numbers()]
    if all(path.is_file() for path in (marker, pickled, plain, *pictures)) and marker.read_bytes() == parameters:
        return root
    for path in (plain, pickled, marker):
        path.unlink(missing_ok=True)
    (root / "jpg").mkdir(parents=True, exist_ok=True)
    for path in list((root / "jpg").iterdir()):
        if IMAGE.fullmatch(path.name):
            path.unlink()
    sights = [_photograph(scenes, *numbers, root / "jpg") for numbers in scenes.numbers()]
    bounds = range(0, scenes.scenes * scenes.views, scenes.views)
    truth = ground_truth([sights[i : i + scenes.views] for i in bounds], sights[bounds.stop :], scenes.seed)
    write_atomically(marker, parameters)
    write_atomically(pickled, pickle.dumps(truth, protocol=2))
    write_atomically(plain, json.dumps(truth, indent=1))
    return root


def _photograph(scenes: SceneSet, index: int, number: int, folder: Path) -> Sight:
    """Write a view of a scene; returns what it shows."""
    building, shot = build_scene(scenes.seed, index), choose_view(scenes.seed, index, number, scenes.size)
    done, jpeg = cv2.imencode(".jpg", render(building, shot), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    name = _image_name(index, number)
    (folder / f"{name}.jpg").write_bytes(jpeg.tobytes())
    return measure(building, shot, name)


def _image_name(index: int, number: int) -> str:
    return f"scene{index:04d}_{number:02d}"
