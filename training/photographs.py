"""Photographs of generated scenes to train on, with their visible façade points; one file per scene.

`python -m training.photographs FOLDER` renders the training scenes that are missing.
"""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from rich.progress import track

import scenes
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.files import write_atomically

JPEG_QUALITY = 92
MASK_STEP_PX = 8  # pixels per cell of `Photograph.seen`


@dataclass(frozen=True)
class Photograph:
    """An image of a façade.

    Attributes:
        jpeg: the encoded image.
        to_picture: homography (3, 3) from façade coordinates to pixels; façade coordinates are fractions of its width
            and height, from the lower left.
        seen: (H/8, W/8) bool, True where the façade is visible.
    """

    jpeg: Array
    to_picture: Array
    seen: Array

    def picture(self) -> Array:
        """Decode the image, (H, W, 3) uint8, BGR."""
        decoded = cv2.imdecode(self.jpeg, cv2.IMREAD_COLOR)
        assert decoded is not None  # `photograph` encoded it
        return decoded


def photograph(seed: int, index: int, number: int, size: tuple[int, int]) -> Photograph:
    """Render view `number` of a scene."""
    scene, view = scenes.build_scene(seed, index), scenes.choose_view(seed, index, number, size)
    done, jpeg = cv2.imencode(".jpg", scenes.render(scene, view), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    facade = scene.main
    plane = np.array([[facade.width_m, 0, 0], [0, facade.height_m, 0], [0, 0, 0], [0, 0, 1]])
    seen = scenes.silhouette(scene, view)[MASK_STEP_PX // 2 :: MASK_STEP_PX, MASK_STEP_PX // 2 :: MASK_STEP_PX]
    return Photograph(jpeg, view.camera(facade, view.size) @ plane, seen)


def write_scene(folder: Path, which: scenes.SceneSet, index: int) -> None:
    """Write the photographs of one scene to `folder/INDEX.npz`, unless the file exists."""
    file = scene_file(folder, index)
    if file.is_file():
        return
    cv2.setNumThreads(1)
    arrays: dict[str, Array] = {}
    for number in range(which.views):
        shot = photograph(which.seed, index, number, which.size)
        arrays |= {f"{field}_{number}": value for field, value in vars(shot).items()}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_atomically(file, content.getvalue())


def read_scene(file: Path) -> list[Photograph]:
    with np.load(file) as arrays:
        count = sum(name.startswith("jpeg_") for name in arrays.files)
        fields = ("jpeg", "to_picture", "seen")
        return [Photograph(*(arrays[f"{field}_{number}"] for field in fields)) for number in range(count)]


def scene_file(folder: Path, index: int) -> Path:
    return folder / f"{index:05d}.npz"


def write(folder: Path, which: scenes.SceneSet, processes: int) -> None:
    """Render all scenes of a set that are missing in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        written = pool.map(partial(write_scene, folder, which), range(which.scenes))
        for _ in track(written, "photographing", which.scenes):
            pass


def main(
    folder: Annotated[Path, typer.Argument(help="Where the photographs go, a file a scene.")],
    unseen: Annotated[bool, typer.Option("--unseen", help="The scenes that the last stage trains on.")] = False,
    processes: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Render the training scenes that are missing."""
    write(folder, scenes.UNSEEN if unseen else scenes.TRAINING, processes)


if __name__ == "__main__":
    typer.run(main)
