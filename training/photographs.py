"""Photographs of generated scenes to train on, with their visible façade points; one file per scene.

`python -m training.photographs FOLDER` renders the training scenes that are missing.
"""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
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
from cvnet_engine.engine.errors import DatasetError
from cvnet_engine.engine.files import write_atomically
from training.views import Source, Subjects

JPEG_QUALITY = 92
MASK_STEP_PX = 8  # pixels per cell of `Source.seen`
PROCESSES = 2


def photograph(seed: int, index: int, number: int, size: tuple[int, int]) -> dict[str, Array]:
    """Render view `number` of a scene: its JPEG file, and `to_picture` and `seen` of its `Source`."""
    scene, view = scenes.build_scene(seed, index), scenes.choose_view(seed, index, number, size)
    done, jpeg = cv2.imencode(".jpg", scenes.render(scene, view), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    plane = np.array([[scene.main.width_m, 0, 0], [0, scene.main.height_m, 0], [0, 0, 0], [0, 0, 1]])
    seen = scenes.silhouette(scene, view)[MASK_STEP_PX // 2 :: MASK_STEP_PX, MASK_STEP_PX // 2 :: MASK_STEP_PX]
    return {"jpeg": jpeg, "to_picture": view.camera(scene.main, view.size) @ plane, "seen": seen}


def write_scene(folder: Path, which: scenes.SceneSet, index: int) -> None:
    """Write the photographs of one scene to `folder/INDEX.npz`, unless the file exists."""
    file = scene_file(folder, index)
    if file.is_file():
        return
    cv2.setNumThreads(1)
    arrays: dict[str, Array] = {}
    for number in range(which.views):
        shot = photograph(which.seed, index, number, which.size)
        arrays |= {f"{field}_{number}": value for field, value in shot.items()}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_atomically(file, content.getvalue())


def read_scene(file: Path) -> tuple[Source, ...]:
    """Read and decode the photographs of one scene."""
    found = []
    with np.load(file) as arrays:
        for number in range(sum(name.startswith("jpeg_") for name in arrays.files)):
            picture = cv2.imdecode(arrays[f"jpeg_{number}"], cv2.IMREAD_COLOR)
            assert picture is not None  # `photograph` encoded it
            found.append(Source(picture, arrays[f"to_picture_{number}"], arrays[f"seen_{number}"]))
    return tuple(found)


def scene_file(folder: Path, index: int) -> Path:
    return folder / f"{index:05d}.npz"


def subjects_of_scenes(folder: Path, count: int) -> Subjects:
    """Read the photographs of `count` scenes.

    Raises:
        DatasetError: scenes have not been rendered.
    """
    files = [scene_file(folder, index) for index in range(count)]
    missing = sum(not file.is_file() for file in files)
    if missing:
        raise DatasetError(
            f"{folder}: {missing} of {count} training scenes missing; run python -m training.photographs {folder}"
        )
    with ThreadPoolExecutor() as pool:
        return list(pool.map(read_scene, files))


def main(
    folder: Annotated[Path, typer.Argument(help="Folder for the photographs, one file per scene.")],
    unseen: Annotated[bool, typer.Option("--unseen", help="Render the scenes for the last stage instead.")] = False,
) -> None:
    """Render the training scenes that are missing."""
    which = scenes.UNSEEN if unseen else scenes.TRAINING
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        written = pool.map(partial(write_scene, folder, which), range(which.scenes))
        for _ in track(written, "photographing", which.scenes):
            pass


if __name__ == "__main__":
    typer.run(main)
