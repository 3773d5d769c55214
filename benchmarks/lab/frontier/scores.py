"""Stored work behind all accuracies of the frontier: descriptors and pair scores.

It contains the descriptors of every image at every scale, and the pair scores of every query with every image, at full
and at coarse resolution. Each image or query is committed to a journal when it is done, so an interrupted run resumes.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np

from benchmarks.lab.frontier import pictures
from benchmarks.lab.frontier.grid import DESCRIPTORS, arithmetic, sides
from benchmarks.lab.frontier.pictures import Picture
from benchmarks.lab.subject import open_engines
from cvnet_engine.benchmarks.accuracy.databases import Database
from cvnet_engine.benchmarks.accuracy.dataset import Dataset
from cvnet_engine.benchmarks.accuracy.evaluation import database_digest
from cvnet_engine.benchmarks.accuracy.journal import Facts, Journal, content, digest
from cvnet_engine.benchmarks.latency import costs
from cvnet_engine.cvnet import checkpoint
from cvnet_engine.engine.contract import Array, Closing
from cvnet_engine.engine.errors import DatasetError, ImageError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.map_codecs import HalfCodec, MapCodec, fit_codec, is_compressed
from cvnet_engine.engine.geometry import AREA_SCALES, IMAGE_SCALES
from cvnet_engine.engine.images import check_size
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.engine.retrieval.pooling import pooled
from cvnet_engine.export.precision import cpu_weight_max

MAPPED = DESCRIPTORS[0]  # its engines compute the maps, which do not depend on the descriptor
POOLED = 1 / 16  # operations of a coarse pair relative to a full one
SECONDS = {"fp32": 1.0, "bf16": 0.6, "int8": 0.3}  # approximate time per operation; used for progress only


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

    @cached_property
    def images(self) -> list[Picture]:
        return pictures.images(self.dataset, self.max_side_px)

    @cached_property
    def queries(self) -> list[Picture]:
        return pictures.queries(self.dataset, self.max_side_px)

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
        """Return the key of `full` and `pooled`, the pair scores (n,) float32 with every image."""
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
        for tried in [sides(pictures.longest_px(dataset))]
        for side in tried
        for precision, maps in arithmetic(side, side == tried[-1]).items()
    ]
    return sorted(found, key=lambda setting: setting.max_side_px)


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


@dataclass(frozen=True)
class Step:
    """A unit of stored work; `cost` is its approximate time, as an equivalent number of fp32 operations."""

    name: str
    cost: float
    run: Callable[[], None]


@dataclass
class Work:
    """Computation of missing work, and the journal that stores it."""

    journal: Journal
    engines: EngineCache
    depth: int
    _loaded: dict[tuple[str, str, str], Pairs] = field(default_factory=dict)  # at most one

    def left(self, setting: Setting) -> Iterator[Step]:
        """Yield the missing steps of a setting."""
        for descriptor in DESCRIPTORS:
            yield from self._descriptions(setting, descriptor)
        for maps in setting.maps:
            yield from self._scores(setting, maps)

    def has(self, setting: Setting, descriptor: str, maps: str) -> bool:
        """Return True if a descriptor and map format are complete."""
        lacking = chain(self._descriptions(setting, descriptor), self._scores(setting, maps))
        return next(lacking, None) is None

    def _descriptions(self, setting: Setting, descriptor: str) -> Iterator[Step]:
        network = costs.Network(self.depth, descriptor)
        for picture in (*setting.images, *setting.queries):
            if self.journal.get(setting.descriptor_facts(descriptor, picture)) is None:
                cost = costs.extract(network, picture.size).flop * SECONDS[setting.precision]
                name = f"{setting.name}: {descriptor} descriptors"
                yield Step(name, cost, partial(self._describe, setting, descriptor, picture))

    def _describe(self, setting: Setting, descriptor: str, picture: Picture) -> None:
        engines, image = self.engines.get(setting.precision, descriptor), picture.read()
        if descriptor != MAPPED:
            engines = replace(engines, features=engines.descriptor)  # computes no maps
        try:
            check_size(image, engines.kind.min_side_px)
        except ImageError as error:
            raise ImageError(f"{picture.path}: {error}") from error
        inputs = ((scale, engines.kind.network_input(image, scale)) for scale in IMAGE_SCALES)
        (descriptors,), maps = engines.at_scales(inputs)
        if maps:  # maps first, so that stored descriptors imply stored maps
            self.journal.put(setting.map_facts(picture), {f"map_{i}": m[0] for i, m in enumerate(maps)})
        self.journal.put(setting.descriptor_facts(descriptor, picture), {"descriptors": descriptors})

    def _scores(self, setting: Setting, maps: str) -> Iterator[Step]:
        for query in setting.queries:
            if self.journal.get(setting.pair_facts(maps, query)) is None:
                pairs = sum(costs.pair(query.size, image.size).flop for image in setting.images)
                cost = (1 + POOLED) * pairs * SECONDS[setting.precision]
                yield Step(f"{setting.name}: {maps} pairs", cost, partial(self._score, setting, maps, query))

    def _score(self, setting: Setting, maps: str, query: Picture) -> None:
        pairs, features = self._pairs(setting, maps), self.features(setting, query)
        engines = self.engines.get(setting.precision, MAPPED)
        self.journal.put(setting.pair_facts(maps, query), pairs.scores(engines, features))

    def _pairs(self, setting: Setting, maps: str) -> Pairs:
        """Load a database into memory; the previous one is dropped."""
        key = setting.name, setting.identity, maps
        if key not in self._loaded:
            self._loaded.clear()
            as_made = [self.features(setting, image) for image in setting.images]
            self._loaded[key] = Pairs.of(as_made, maps)
        return self._loaded[key]

    def features(self, setting: Setting, picture: Picture) -> Features:
        """Feature maps of an image; pairs need no descriptor."""
        maps = self.stored(setting.map_facts(picture))
        return Features(np.empty(0, np.float32), tuple(maps[f"map_{i}"] for i in range(len(AREA_SCALES))))

    def stored(self, facts: Facts) -> dict[str, Array]:
        """Return stored arrays.

        Raises:
            DatasetError: they have not been computed.
        """
        found = self.journal.get(facts)
        if found is None:
            raise DatasetError("scores are missing; run 'python -m benchmarks.lab.frontier score' to its end first")
        return found


@dataclass(frozen=True)
class Pairs:
    """Feature maps of a database in memory, decoded as from a gallery, at full and at coarse resolution."""

    whole: Database
    small: Database

    @classmethod
    def of(cls, as_made: list[Features], maps: str) -> Pairs:
        whole = Database.as_kept(as_made, codec(maps, as_made))
        return cls(whole, Database([pooled(features) for features in whole.described]))

    def scores(self, engines: Engines, query: Features) -> dict[str, Array]:
        rows = range(len(self.whole.described))
        return {
            "full": engines.score_rows(query, self.whole, rows),
            "pooled": engines.score_rows(pooled(query), self.small, rows),
        }


def codec(maps: str, described: list[Features]) -> MapCodec:
    """Return the codec of a gallery that stores maps in this format and contains these images."""
    return fit_codec(maps, described) if is_compressed(maps) else HalfCodec()
