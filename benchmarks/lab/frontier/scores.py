"""Stored work behind all accuracies of the frontier: descriptors and pair scores.

It contains the descriptors of every image at every scale, and the pair scores of every query with every image, at full
and at coarse resolution. Each image or query is committed to a journal when it is done, so an interrupted run resumes.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.lab.frontier.grid import DESCRIPTORS, arithmetic, sides
from benchmarks.lab.subject import open_engines
from cvnet_engine.benchmarks.accuracy.databases import Database
from cvnet_engine.benchmarks.accuracy.dataset import Dataset
from cvnet_engine.benchmarks.accuracy.evaluation import database_digest, within
from cvnet_engine.benchmarks.accuracy.journal import Facts, Journal, content, digest
from cvnet_engine.cvnet import checkpoint
from cvnet_engine.engine.contract import Array, Closing
from cvnet_engine.engine.errors import DatasetError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.map_codecs import HalfCodec, fit_codec, is_compressed
from cvnet_engine.engine.geometry import AREA_SCALES, IMAGE_SCALES
from cvnet_engine.engine.images import Box, check_size, load, naming, read_size
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.engine.retrieval.pooling import Pooled, pooled
from cvnet_engine.export.precision import cpu_weight_max

MAPPED = DESCRIPTORS[0]  # its engines compute the maps, which do not depend on the descriptor


@dataclass(frozen=True)
class Picture:
    """An image file. A query is cropped to its box, then shrunk to a longest side, as in `search`."""

    path: Path
    bbx: Box | None
    max_side_px: int

    def read(self) -> Array:
        """Return (H, W, 3) uint8."""
        box = within(read_size(self.path), self.bbx) if self.bbx else None
        return load(self.path, box, self.max_side_px)


@dataclass(frozen=True)
class Setting:
    """A data set at an image size in one precision.

    Attributes:
        identity: what results depend on besides files: weights, precision, libraries.
        maps: map formats.
    """

    dataset: Dataset
    max_side_px: int
    precision: str
    maps: tuple[str, ...]
    identity: str

    @property
    def name(self) -> str:
        return f"{self.dataset.name}, {self.max_side_px} px, {self.precision}"

    @property
    def images(self) -> list[Picture]:
        return [Picture(path, None, self.max_side_px) for path in self.dataset.images]

    @property
    def queries(self) -> list[Picture]:
        boxes = (truth.bbx for truth in self.dataset.ground_truth)
        return [Picture(path, bbx, self.max_side_px) for path, bbx in zip(self.dataset.queries, boxes, strict=True)]

    @cached_property
    def database(self) -> str:
        return database_digest(self.dataset)

    def descriptor_facts(self, descriptor: str, picture: Picture) -> Facts:
        """Return the key of `descriptors` (S, 2048) float32, one for each of `IMAGE_SCALES`."""
        return "descriptors", self.identity, descriptor, self.max_side_px, content(picture.path), picture.bbx

    def map_facts(self, picture: Picture) -> Facts:
        """Return the key of `map_0`, `map_1`, ... (256, h_s, w_s) float32."""
        return "maps", self.identity, self.max_side_px, content(picture.path), picture.bbx

    def pair_facts(self, maps: str, query: Picture) -> Facts:
        """Return the key of `full` and `pooled`, the pair scores (n,) float32 at full and at coarse resolution."""
        return "pairs", self.identity, maps, self.max_side_px, content(query.path), query.bbx, self.database


def settings(datasets: Sequence[Dataset], model: str, photos: Sequence[Array]) -> list[Setting]:
    """Return all settings of the grid, small images first; each data set ends with the published one.

    Args:
        model: digest of the weights.
        photos: calibration images of int8.
    """
    openvino = version("openvino")
    calibrated = digest(tuple(float(photo.sum(dtype=np.float64)) for photo in photos))

    def identity(precision: str) -> str:
        quantised = f" {calibrated}, weights to {cpu_weight_max()}" if precision == "int8" else ""
        return f"{model} {precision} openvino {openvino}{quantised}"

    found = [
        Setting(dataset, side, precision, maps, identity(precision))
        for dataset in datasets
        for tried in [sides(longest_px(dataset))]
        for side in tried
        for precision, maps in arithmetic(side, side == tried[-1]).items()
    ]
    return sorted(found, key=lambda setting: setting.max_side_px)


def longest_px(dataset: Dataset) -> int:
    """Return the longest side of any image."""
    return max(max(read_size(path)) for path in (*dataset.images, *dataset.queries))


class EngineCache(Closing):
    """Engines of a model by precision and descriptor, each opened on first use."""

    def __init__(self, weights: str, depth: int, photos: list[Array], threads: int) -> None:
        self._weights, self._depth, self._photos, self._threads = weights, depth, photos, threads
        self._opened: dict[tuple[str, str], Engines] = {}
        self._stack = contextlib.ExitStack()

    def get(self, precision: str, descriptor: str) -> Engines:
        key = precision, descriptor
        if key not in self._opened:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            model = checkpoint.load(self._weights, self._depth, descriptor=descriptor)
            opened = open_engines(model, precision, self._photos, folder, self._threads)
            self._opened[key] = self._stack.enter_context(opened)
        return self._opened[key]

    def close(self) -> None:
        self._stack.close()


class Work:
    """Computation of missing work, and the journal that stores it."""

    def __init__(self, journal: Journal, engines: EngineCache) -> None:
        self._journal, self._engines = journal, engines
        self._loaded: dict[tuple[str, str, str], Database] = {}  # at most one

    def missing(self, setting: Setting) -> Iterator[Callable[[], None]]:
        """Yield the steps whose results are not stored: a descriptor of an image, or a query's pair scores."""
        for descriptor in DESCRIPTORS:
            for picture in (*setting.images, *setting.queries):
                if self._journal.get(setting.descriptor_facts(descriptor, picture)) is None:
                    yield partial(self._describe, setting, descriptor, picture)
        for maps in setting.maps:
            for query in setting.queries:
                if self._journal.get(setting.pair_facts(maps, query)) is None:
                    yield partial(self._score, setting, maps, query)

    def _describe(self, setting: Setting, descriptor: str, picture: Picture) -> None:
        engines, image = self._engines.get(setting.precision, descriptor), picture.read()
        if descriptor != MAPPED:
            engines = replace(engines, features=engines.descriptor)  # computes no maps
        with naming(picture.path):
            check_size(image, engines.kind.min_side_px)
        inputs = ((scale, engines.kind.network_input(image, scale)) for scale in IMAGE_SCALES)
        (descriptors,), maps = engines.at_scales(inputs)
        if maps:  # maps first, so that stored descriptors imply stored maps
            self._journal.put(setting.map_facts(picture), {f"map_{i}": m[0] for i, m in enumerate(maps)})
        self._journal.put(setting.descriptor_facts(descriptor, picture), {"descriptors": descriptors})

    def _score(self, setting: Setting, maps: str, query: Picture) -> None:
        database, features = self._database(setting, maps), self._features(setting, query)
        engines, rows = self._engines.get(setting.precision, MAPPED), range(len(setting.images))
        scores = {
            "full": engines.score_rows(features, database, rows),
            "pooled": engines.score_rows(pooled(features), Pooled(database), rows),
        }
        self._journal.put(setting.pair_facts(maps, query), scores)

    def _database(self, setting: Setting, maps: str) -> Database:
        """Load the maps of a database into memory, decoded as from a gallery; the previous one is dropped."""
        key = setting.name, setting.identity, maps
        if key not in self._loaded:
            self._loaded.clear()
            extracted = [self._features(setting, image) for image in setting.images]
            codec = fit_codec(maps, extracted) if is_compressed(maps) else HalfCodec()
            self._loaded[key] = Database.as_kept(extracted, codec)
        return self._loaded[key]

    def _features(self, setting: Setting, picture: Picture) -> Features:
        """Feature maps of an image; pairs need no descriptor."""
        maps = self.stored(setting.map_facts(picture))
        return Features(np.empty(0, np.float32), tuple(maps[f"map_{i}"] for i in range(len(AREA_SCALES))))

    def stored(self, facts: Facts) -> dict[str, Array]:
        """Return stored arrays.

        Raises:
            DatasetError: they are not in the journal.
        """
        found = self._journal.get(facts)
        if found is None:
            raise DatasetError("scores are missing from the folder --work; delete it and start again")
        return found
