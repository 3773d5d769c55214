"""Data sets in the layout of Revisited Oxford/Paris: `DATA_DIR/NAME/gnd_NAME.pkl` and `DATA_DIR/NAME/jpg/*.jpg`.

The ground truth is a dict of `imlist` and `qimlist` (image names) and `gnd`, one record per query: `bbx`
(x1, y1, x2, y2 in pixels), and `easy`, `hard`, `junk` (indices into `imlist`). Without a pickle, `gnd_NAME.json` with
the same content is read. Boxes are not read if queries are evaluated as whole images.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import DatasetError, one_line
from cvnet_engine.engine.files import absolute
from cvnet_engine.engine.images import Box

IMAGE_NAME = re.compile(r"(?!(?:.*/)?\.\.(?:/|$))[^/\0][^\0]*")  # rejects names that leave the image folder
LABELS = ("easy", "hard", "junk")
LISTED = 5  # missing images named in an error message
# The archives that revisitop's python/download.py fetches.
SOURCES = {
    "roxford5k": "www.robots.ox.ac.uk/~vgg/data/oxbuildings (oxbuild_images.tgz)",
    "rparis6k": "www.robots.ox.ac.uk/~vgg/data/parisbuildings (paris_1.tgz, paris_2.tgz)",
}


@dataclass(frozen=True)
class GroundTruth:
    """Labels of one query: a box (x1, y1, x2, y2) in pixels, None for the whole image, and database rows (int64)."""

    bbx: Box | None
    easy: Array
    hard: Array
    junk: Array


@dataclass(frozen=True)
class Dataset:
    """A benchmark: database images, query images, and one `GroundTruth` per query. Rows index `images`."""

    name: str
    images: tuple[Path, ...]
    queries: tuple[Path, ...]
    ground_truth: tuple[GroundTruth, ...]

    def with_distractors(self, images: Sequence[Path]) -> Dataset:
        """Return the data set with more database images, none of them relevant to any query."""
        return replace(self, images=self.images + tuple(images))


def load(data_dir: Path, name: str, cropped: bool = True) -> Dataset:
    """Load the data set `name` from `data_dir`.

    Args:
        cropped: read the queries' boxes. Without them, queries are whole images.

    Raises:
        DatasetError: the ground truth is missing or malformed, or images are missing.
    """
    folder = absolute(data_dir) / name
    content = read_ground_truth(folder, name)
    try:
        dataset = parse(content, folder / "jpg", name, cropped)
    except (ValueError, OverflowError) as error:  # OverflowError: an integer too large for a float
        raise DatasetError(f"{folder}: ground truth malformed: {error}; correct it, or copy it again") from error
    require_images(dataset, folder / "jpg")
    return dataset


def require_images(dataset: Dataset, folder: Path) -> None:
    """Raise DatasetError if images are missing: how many, which, and where to get them."""
    images = dict.fromkeys(dataset.images + dataset.queries)
    missing = [path.name for path in images if not path.is_file()]
    if missing:
        listed = ", ".join(missing[:LISTED]) + (", ..." if len(missing) > LISTED else "")
        source = SOURCES.get(dataset.name)
        remedy = f"they come from {source}: unpack them there" if source else "copy the data set's images there"
        raise DatasetError(f"{folder}: {len(missing)} of {len(images)} images missing ({listed}); {remedy}")


def parse(content: dict[str, Any], folder: Path, name: str, cropped: bool = True) -> Dataset:
    """Validate ground truth that was read from a file.

    Raises:
        ValueError: the content is malformed; the message names the query and the entry.
    """
    images, queries = (names(content.get(key), key) for key in ("imlist", "qimlist"))
    twice = next((image for image, count in Counter(images).items() if count > 1), None)
    if twice:
        raise ValueError(f"imlist has {twice!r} more than once")
    records = entries(content.get("gnd"), "gnd")
    if len(records) != len(queries):
        raise ValueError(f"{len(records)} records for {len(queries)} queries")
    return Dataset(
        name,
        tuple(folder / f"{image}.jpg" for image in images),
        tuple(folder / f"{image}.jpg" for image in queries),
        tuple(
            ground_truth(record, len(images), f"query {query!r}", cropped)
            for query, record in zip(queries, records, strict=True)
        ),
    )


def names(value: Any, where: str) -> list[str]:
    """Return the image names; raises ValueError if one is malformed or leaves the data set's folder."""
    found = entries(value, where)
    if not found:
        raise ValueError(f"{where} is empty")
    for number, name in enumerate(found):
        if not isinstance(name, str) or not IMAGE_NAME.fullmatch(name):
            raise ValueError(f"{where}[{number}] is {name!r}; expected an image's name")
    return found


def ground_truth(record: Any, images: int, query: str, cropped: bool) -> GroundTruth:
    """Validate the record of one query."""
    if not isinstance(record, dict):
        raise ValueError(f"{query} has a {type(record).__name__}; expected a dict of bbx, {', '.join(LABELS)}")
    listed: dict[int, str] = {}  # row -> the entry that lists it
    for label in LABELS:
        for number, row in enumerate(entries(record.get(label), f"{query}, {label}")):
            entry = f"{label}[{number}]"
            if type(row) is not int or not 0 <= row < images:
                raise ValueError(f"{query}, {entry} is {row!r}; expected a row of {images} images")
            if row in listed:
                raise ValueError(f"{query}, {entry} is {row}, as {listed[row]} is; expected an image in one list, once")
            listed[row] = entry
    rows = (np.array(record[label], np.int64) for label in LABELS)
    return GroundTruth(read_box(record, query) if cropped else None, *rows)


def read_box(record: dict[str, Any], query: str) -> Box:
    """Validate the box of a query."""
    if record.get("bbx") is None:
        raise ValueError(f"{query} has no bbx; expected x1, y1, x2, y2 (--uncropped evaluates whole images)")
    box = entries(record["bbx"], f"{query}, bbx")
    if len(box) != 4 or not all(type(bound) in (int, float) and math.isfinite(bound) for bound in box):
        raise ValueError(f"{query}, bbx is {box}; expected four numbers x1, y1, x2, y2")
    x1, y1, x2, y2 = map(float, box)
    return x1, y1, x2, y2


def entries(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} is of type {type(value).__name__}; expected a list")
    return list(value)


def read_ground_truth(folder: Path, name: str) -> dict[str, Any]:
    """Return the content of `gnd_NAME.pkl` or, without it, of `gnd_NAME.json`."""
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
    except Exception as error:  # a damaged pickle can raise nearly any exception
        raise DatasetError(
            f"{folder}: ground truth not readable ({type(error).__name__}: {one_line(error)}); copy it again"
        ) from error
    if not isinstance(content, dict):
        raise DatasetError(
            f"{folder}: ground truth is a {type(content).__name__}; expected a dict of imlist, qimlist and gnd"
        )
    return content


class DataUnpickler(pickle.Unpickler):
    """An unpickler for plain containers, strings and numbers. It refuses imports, because they could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise DatasetError(
            f"ground truth pickle asks for {one_line(f'{module}.{name}')}; "
            "expected plain data only: do not use this file"
        )


def read_distractors(listing: Path) -> list[Path]:
    """Return the image paths listed in a text file, one per line; relative paths start at the file's folder.

    Raises:
        DatasetError: the file is not readable or is empty, or an image is missing.
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
