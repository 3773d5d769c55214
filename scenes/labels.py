"""Ground truth measured on the images: which part of its building a view shows, and how hard it is to match."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from cvnet_engine.engine.contract import Array
from scenes.photograph import silhouette
from scenes.projection import project
from scenes.scene import Scene
from scenes.view import View

GRID = 24  # samples per side of the façade, for the overlap of two views


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
    box = (cols[0], rows[0], cols[-1] + 1, rows[-1] + 1) if len(rows) else (0, 0, view.size[1], view.size[0])
    return Sight(
        name=name,
        points=inside.reshape(GRID, GRID),
        px_per_m=float(np.sqrt(cv2.contourArea(corners) / (facade.width_m * facade.height_m))),
        yaw_deg=view.yaw_deg,
        share=float(seen.mean()),
        bbx=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
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
