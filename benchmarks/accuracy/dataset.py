"""Data sets in the layout of Revisited Oxford/Paris: `DATA_DIR/NAME/gnd_NAME.pkl` and `DATA_DIR/NAME/jpg/*.jpg`.

The ground truth is a dict of `imlist` and `qimlist` (image names) and `gnd`, one record a query: `bbx`
(x1, y1, x2, y2 in pixels), and `easy`, `hard`, `junk` (indices into `imlist`). A JSON twin of the same content is
accepted where there is no pickle.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.contract import Array
from engine.errors import DatasetError
from engine.files import absolute

LISTED = 5  # missing images that are named
# as revisitop's own python/download.py fetches them
SOURCES = {
    "roxford5k": "www.robots.ox.ac.uk/~vgg/data/oxbuildings (oxbuild_images.tgz)",
    "rparis6k": "www.robots.ox.ac.uk/~vgg/data/parisbuildings (paris_1.tgz, paris_2.tgz)",
}


@dataclass(frozen=True)
class GroundTruth:
    """One query's labels: a box (x1, y1, x2, y2) px, and rows of the database (int64 arrays)."""

    bbx: tuple[float, float, float, float]
    easy: Array
    hard: Array
    junk: Array


@dataclass(frozen=True)
class Dataset:
    """A benchmark: database images, query images, and one `GroundTruth` a query. Rows index `images`."""

    name: str
    images: tuple[Path, ...]
    queries: tuple[Path, ...]
    ground_truth: tuple[GroundTruth, ...]

    def with_distractors(self, images: Sequence[Path]) -> Dataset:
        """The same queries in a larger database; distractors are relevant to none of them."""
        return replace(self, images=self.images + tuple(images))


def load(data_dir: Path, name: str) -> Dataset:
    """The data set NAME in DATA_DIR.

    Raises:
        DatasetError: no ground truth, malformed ground truth, or images that are not there.
    """
    folder = absolute(data_dir / name)
    content = read_ground_truth(folder, name)
    try:
        dataset = parse(content, folder / "jpg", name)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(
            f"{folder}: ground truth malformed ({type(error).__name__}: {error}); "
            "expected imlist, qimlist and gnd with bbx, easy, hard, junk"
        ) from error
    require_images(dataset, folder / "jpg")
    return dataset


def require_images(dataset: Dataset, folder: Path) -> None:
    """Raise DatasetError where images are missing: how many, which, and where they come from."""
    images = dict.fromkeys(dataset.images + dataset.queries)
    missing = [path.name for path in images if not path.is_file()]
    if missing:
        listed = ", ".join(missing[:LISTED]) + (", ..." if len(missing) > LISTED else "")
        source = SOURCES.get(dataset.name)
        remedy = f"they come from {source}: unpack them there" if source else "copy the data set's images there"
        raise DatasetError(f"{folder}: {len(missing)} of {len(images)} images missing ({listed}); {remedy}")


def parse(content: dict[str, Any], folder: Path, name: str) -> Dataset:
    """Ground truth as read from a file, checked."""

    def rows(values: Any) -> Array:
        array = np.asarray(values, dtype=np.int64).reshape(-1)
        outside = array[(array < 0) | (array >= len(content["imlist"]))]
        if outside.size:
            raise ValueError(f"row {outside[0]} of {len(content['imlist'])} images")
        return array

    def record(entry: dict[str, Any]) -> GroundTruth:
        x1, y1, x2, y2 = (float(v) for v in entry["bbx"])
        int(x1 + y1 + x2 + y2)  # rejects inf and nan
        return GroundTruth((x1, y1, x2, y2), rows(entry["easy"]), rows(entry["hard"]), rows(entry["junk"]))

    if not (content["imlist"] and content["qimlist"]):
        raise ValueError("no database images, or no queries")
    if len(content["gnd"]) != len(content["qimlist"]):
        raise ValueError(f"{len(content['gnd'])} records for {len(content['qimlist'])} queries")
    return Dataset(
        name,
        tuple(folder / f"{image}.jpg" for image in content["imlist"]),
        tuple(folder / f"{image}.jpg" for image in content["qimlist"]),
        tuple(record(entry) for entry in content["gnd"]),
    )


def read_ground_truth(folder: Path, name: str) -> dict[str, Any]:
    """The content of `gnd_NAME.pkl`, else of `gnd_NAME.json`."""
    pickled, plain = folder / f"gnd_{name}.pkl", folder / f"gnd_{name}.json"
    try:
        if pickled.is_file():
            content = DataUnpickler(io.BytesIO(pickled.read_bytes())).load()
        elif plain.is_file():
            content = json.loads(plain.read_text())
        else:
            raise DatasetError(
                f"{folder}: no ground truth; expected {pickled.name} or {plain.name} there: "
                "check --data-dir and --dataset"
            )
    except DatasetError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DatasetError(
            f"{folder}: ground truth not readable ({type(error).__name__}: {error}); copy it again"
        ) from error
    if not isinstance(content, dict):
        raise DatasetError(
            f"{folder}: ground truth is a {type(content).__name__}; expected a dict of imlist, qimlist and gnd"
        )
    return content


class DataUnpickler(pickle.Unpickler):
    """Unpickles plain containers, strings and numbers; what would import, and so could run code, is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise DatasetError(
            f"ground truth pickle asks for {module}.{name}; expected plain data only: do not use this file"
        )


def read_distractors(listing: Path) -> list[Path]:
    """Image paths of a text file, one a line, relative ones from the file's own folder.

    Raises:
        DatasetError: no such file, an empty one, or a path that is not there.
    """
    try:
        lines = [line.strip() for line in listing.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{listing}: not readable ({error}); expected a text file with an image path a line"
        ) from error
    paths = [absolute(listing.parent / line) for line in lines]
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        first = missing[0] if missing else "an empty list"
        raise DatasetError(
            f"{listing}: {len(missing)} of {len(paths)} images missing ({first}); expected an image path a line"
        )
    return paths
