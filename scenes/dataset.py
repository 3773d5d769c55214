"""Set of scenes on disk, in the revisitop layout, with ground truth measured on the images."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.files import write_atomically
from scenes.photograph import render, silhouette
from scenes.projection import project
from scenes.scene import Scene, build_scene
from scenes.view import View, choose_view

JPEG_QUALITY = 85
DISTRACTOR_VIEW = 1  # a mild view
IMAGE = re.compile(r"scene\d{4,}_\d{2,}\.jpg")  # matches the names of `_image_name`
GRID = 24  # samples per side of the façade, for the overlap of two views


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
DEMO = SceneSet("demo", seed=31, scenes=10, views=5, distractors=8, size=(240, 320))
SETS = {scenes.name: scenes for scenes in (DEMO, VALIDATION, TEST)}  # sets for evaluation


@dataclass(frozen=True)
class Sight:
    """The visible part of a building in an image, measured on the image."""

    name: str
    points: Array  # (GRID, GRID) bool: visible points of the façade
    px_per_m: float
    yaw_deg: float
    share: float  # fraction of the image
    bbx: tuple[float, float, float, float]  # x1, y1, x2, y2 px


def measure(scene: Scene, view: View, name: str) -> Sight:
    """Measure the visible points of the façade, its scale, and its bounding box."""
    seen = silhouette(scene, view)
    camera, facade = view.camera(scene.main, view.size), scene.main
    v, u = np.mgrid[0.5 / GRID : 1 : 1 / GRID, 0.5 / GRID : 1 : 1 / GRID]
    points = np.stack([u.ravel() * facade.width_m, v.ravel() * facade.eaves_m, 0 * u.ravel()], 1)
    x, y = np.floor(project(camera, points)).astype(int)
    inside = (x >= 0) & (x < view.size[1]) & (y >= 0) & (y < view.size[0])
    inside[inside] = seen[y[inside], x[inside]]
    rows, cols = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    corners = project(camera, facade.corners).T.astype(np.float32)
    x1, y1, x2, y2 = (cols[0], rows[0], cols[-1] + 1, rows[-1] + 1) if len(rows) else (0, 0, view.size[1], view.size[0])
    return Sight(
        name=name,
        points=inside.reshape(GRID, GRID),
        px_per_m=float(np.sqrt(cv2.contourArea(corners) / (facade.width_m * facade.height_m))),
        yaw_deg=view.yaw_deg,
        share=float(seen.mean()),
        bbx=(float(x1), float(y1), float(x2), float(y2)),
    )


def grade(query: Sight, other: Sight) -> str:
    """Return how hard it is to recognise the query's building in another view: "easy", "hard" or "junk"."""
    overlap = (query.points & other.points).sum() / max(query.points.sum(), 1)
    zoom = abs(np.log2(query.px_per_m / other.px_per_m))
    turn = abs(query.yaw_deg - other.yaw_deg)
    if overlap < 0.2 or other.share < 0.03:
        return "junk"
    return "easy" if overlap > 0.65 and zoom < 1 and turn < 35 else "hard"


def ground_truth(scenes: list[list[Sight]], distractors: list[Sight], seed: int) -> dict[str, Any]:
    """Return `imlist`, `qimlist` and `gnd`.

    Each scene's first view is a query; all other images are the database, in random order.
    """
    database = [sight.name for _, *views in scenes for sight in views] + [sight.name for sight in distractors]
    order = np.random.default_rng((seed, len(database))).permutation(len(database))
    imlist = [database[i] for i in order]
    rows = {name: row for row, name in enumerate(imlist)}
    gnd = []
    for query, *others in scenes:
        grades = {rows[other.name]: grade(query, other) for other in others}
        labels = {label: sorted(r for r, g in grades.items() if g == label) for label in ("easy", "hard", "junk")}
        gnd.append({"bbx": list(query.bbx), **labels})
    return {"imlist": imlist, "qimlist": [views[0].name for views in scenes], "gnd": gnd}


def write(scenes: SceneSet, data_dir: Path) -> Path:
    """Generate a set, unless it is already there; returns its folder, DATA_DIR/NAME.

    Images go to `jpg/`, the ground truth to `gnd_NAME.json` and `gnd_NAME.pkl` with equal content, the parameters of
    the set to `scenes.json`. The ground truth is written last, so a folder that has it is complete. Images of another
    set of the same name are removed; other files in `jpg/` are kept.
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
