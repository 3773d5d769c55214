"""Approximate indexes of galleries, stored in a file beside the shards.

    approximate.index   a line of JSON, `About`; then an npz of the inverted file's arrays and of `images`, (n,) `IMAGE`

The file identifies each image by shard, id and the checksum of its row, which covers path and descriptor. Comparing
these with the shards shows which images were added, replaced or removed since it was built.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from cvnet_engine.engine import typed_json
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import GalleryError, one_line
from cvnet_engine.engine.files import open_regular, write_atomically
from cvnet_engine.engine.gallery.columns import Columns
from cvnet_engine.engine.retrieval.ann_building import Built
from cvnet_engine.engine.retrieval.inverted_file import Approximate, Effort, InvertedFile, Quantizer, Scanner

ANN = "approximate.index"
FORMAT = 1
IMAGE = np.dtype([("shard", "<i4"), ("id", "<i8"), ("checksum", "<u4")])
MOST_LINE = 1 << 16  # bytes
MOST_REMOVED = 0.1  # of the indexed images; beyond it, recall is no longer as measured
MOST_ADDED = 0.25  # of the gallery's images; beyond it, a full scan is faster
AGAIN = "search is exact until 'cvnet-engine gallery ann' builds the index again"


@dataclass(frozen=True)
class About:
    """Quality and cost of an approximate index.

    Attributes:
        digest: SHA-256 of the rest of the file.
        images: number of images in the index.
        wanted: requested recall@100.
        recall: measured recall@100, the mean over `queries` images of the gallery, each excluded from its own results.
        recall_error: standard error of that mean.
        probes, candidates: see `Effort`.
    """

    format: int
    digest: str
    images: int
    wanted: float
    recall: float
    recall_error: float
    queries: int
    probes: int
    candidates: int

    @property
    def effort(self) -> Effort:
        return Effort(self.probes, self.candidates)


@dataclass(frozen=True)
class AnnFile:
    """An approximate index as stored.

    Attributes:
        images: (n,) of `IMAGE`, the image of each descriptor in the inverted file, in the order of the gallery's rows.
    """

    about: About
    file: InvertedFile
    images: Array

    @classmethod
    def of(cls, built: Built, wanted: float, shards: Sequence[Columns]) -> AnnFile:
        """Wrap an index that was built from all images of these shards."""
        trial, images = built.trial, images_of(shards)
        about = About(
            format=FORMAT,
            digest="",
            images=len(images),
            wanted=wanted,
            recall=trial.recall,
            recall_error=trial.error,
            queries=len(trial.recalls),
            probes=trial.effort.probes,
            candidates=trial.effort.candidates,
        )
        return cls(about, built.file, images)

    def save(self, gallery: Path) -> About:
        """Write the file into a gallery's folder, replacing an existing one; return its header."""
        quantizer = self.file.quantizer
        stream = io.BytesIO()
        np.savez(
            stream,
            allow_pickle=False,
            projection=quantizer.projection,
            centroids=quantizer.centroids,
            levels=quantizer.levels,
            sizes=self.file.sizes,
            members=self.file.members,
            codes=self.file.codes,
            images=self.images,
        )
        about = replace(self.about, digest=digest(self.about, stream.getbuffer()))
        write_atomically(gallery / ANN, json.dumps(asdict(about)).encode() + b"\n" + stream.getbuffer())
        return about

    @classmethod
    def load(cls, gallery: Path) -> AnnFile | None:
        """Read the approximate index of a gallery; return None if it has none.

        Raises:
            GalleryError: the file is damaged or not readable.
        """
        file = gallery / ANN
        try:
            with open_regular(file) as stream:
                about = typed_json.parse(stream.readline(MOST_LINE).decode(), About)
                data = stream.read()
            if about.format != FORMAT:
                raise ValueError(f"format is {about.format}")
            if about.digest != digest(about, data):
                raise ValueError("digest differs")
            with np.load(io.BytesIO(data)) as arrays:
                return cls(about, read_inverted_file(arrays), read_images(arrays, about))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise GalleryError(f"{file}: damaged, or cannot be read ({one_line(error)}); {AGAIN}") from error

    def opened(self, shards: Sequence[Columns]) -> Approximate:
        """Match the index with the current images of the gallery.

        Raises:
            GalleryError: too many images were removed, replaced or added since it was built.
        """
        rows = rows_of(self.images, shards)
        removed = np.count_nonzero(rows < 0)
        if removed > MOST_REMOVED * len(rows):
            raise GalleryError(f"{ANN}: {removed:,} of its {len(rows):,} images were changed or removed since; {AGAIN}")
        unknown = np.ones(sum(map(len, shards)), bool)
        unknown[rows[rows >= 0]] = False
        added = np.flatnonzero(unknown)
        if len(added) > MOST_ADDED * len(unknown):  # no exact count: a server would warn again at each change
            raise GalleryError(f"{ANN}: more than {MOST_ADDED:.0%} of the images were added since; {AGAIN}")
        return Approximate(Scanner(self.file), rows, added, self.about.effort)


def digest(about: About, data: bytes | memoryview) -> str:
    """Return the SHA-256 of an index: of its header without `digest`, and of its arrays."""
    head = json.dumps(asdict(replace(about, digest=""))).encode()
    return hashlib.sha256(head + hashlib.sha256(data).digest()).hexdigest()


def read_inverted_file(arrays: Mapping[str, Array]) -> InvertedFile:
    quantizer = Quantizer(arrays["projection"], arrays["centroids"], arrays["levels"])
    file = InvertedFile(quantizer, arrays["sizes"], arrays["members"], arrays["codes"])
    file.require_sound()
    return file


def read_images(arrays: Mapping[str, Array], about: About) -> Array:
    images = arrays["images"]
    if (images.dtype, images.shape) != (IMAGE, (len(arrays["members"]),)) or about.images != len(images):
        raise ValueError("its images do not match its lists")
    if not (min(about.probes, about.candidates) > 0 and np.all(np.diff(images["shard"]) >= 0)):
        raise ValueError("invalid number of probes or candidates, or order of shards")
    return images


def images_of(shards: Sequence[Columns]) -> Array:
    """Return the identity of each row of a gallery, (n,) of `IMAGE`."""
    images = np.empty(sum(map(len, shards)), IMAGE)
    start = 0
    for number, columns in enumerate(shards):
        part = images[start : start + len(columns)]
        part["shard"], part["id"], part["checksum"] = number, columns.table["id"], columns.table["checksum"]
        start += len(columns)
    return images


def rows_of(images: Array, shards: Sequence[Columns]) -> Array:
    """Return the current row of each of `images` in a gallery, (n,) int64; -1 if it was removed or replaced."""
    rows = np.full(len(images), -1)
    bounds = np.searchsorted(images["shard"], np.arange(len(shards) + 1))
    start = 0
    for (first, last), columns in zip(pairwise(bounds), shards, strict=True):
        if len(columns):
            wanted, ids = images[first:last], columns.table["id"]
            places = np.searchsorted(ids, wanted["id"]).clip(max=len(ids) - 1)
            same = (ids[places] == wanted["id"]) & (columns.table["checksum"][places] == wanted["checksum"])
            rows[first:last][same] = start + places[same]
        start += len(columns)
    return rows
