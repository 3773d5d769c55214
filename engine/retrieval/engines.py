"""The three engines of a model: from an image to features, and from query and candidates to pair scores.

decode -> scale -> engines -> Features -> global search -> Ranking -> pair scores -> Ranking
"""

from __future__ import annotations

import contextlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cvnet_engine.engine.backends import known, open_engine, usable_threads
from cvnet_engine.engine.bundle import Bundle, GraphFile
from cvnet_engine.engine.contract import Array, Closing, Engine, EnginePool, Uploading, require_signature
from cvnet_engine.engine.errors import BackendError, CvnetWarning, ImageError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.geometry import IMAGE_GRAPHS, IMAGE_SCALES, Scales, Size
from cvnet_engine.engine.images import Box, ImageLike, check_size, load, naming
from cvnet_engine.engine.retrieval.blocks import Descriptors
from cvnet_engine.engine.retrieval.descriptors import DESCRIPTORS, Descriptor

BATCH = 4  # candidates with maps of equal size, scored at once


class Mapped(Protocol):
    """Interface of images whose feature maps can be read, to score pairs."""

    def map_size(self, row: int) -> Size:
        """Return the (height, width) of the row's feature map at scale 1, in positions."""

    def features(self, row: int) -> Features:
        """Return the features of the row."""


class Collection(Mapped, Protocol):
    """Interface of images that can be searched and reranked: a gallery, or a benchmark's reference."""

    @property
    def descriptors(self) -> Array | Descriptors:
        """(n, 2048) float32, unit norm."""


@dataclass(frozen=True)
class Engines(Closing):
    """The three engines of a model: descriptor, features and reranker.

    Attributes:
        kind: descriptor method of the first two engines.
        scales: image scales used for the descriptor, of `IMAGE_SCALES`.
        streams: number of threads that may extract at the same time.
    """

    descriptor: Engine
    features: Engine
    reranker: Engine
    kind: Descriptor = DESCRIPTORS["cvnet"]
    scales: Scales = IMAGE_SCALES
    streams: int = 1

    @classmethod
    def open(
        cls, bundle: Bundle, threads: int | None = None, scales: Scales = IMAGE_SCALES, streams: int = 1
    ) -> Engines:
        """Open the engines of a bundle, each graph on the backend that it was built for.

        Args:
            streams: engines per image graph, which share the threads.

        Raises:
            BundleError: the bundle's files are bound to another machine.
            BackendError: a backend or its device is missing, or a file holds a different graph.
        """
        manifest = bundle.manifest
        with contextlib.ExitStack() as opened:
            for name in {graph.backend for graph in manifest.graphs.values()}:
                known(name).require_bound(manifest.gpu or {})
            image_graphs = (opened.enter_context(open_pool(bundle, name, threads, streams)) for name in IMAGE_GRAPHS)
            descriptor, features = image_graphs
            reranker = opened.enter_context(open_pool(bundle, "reranker", threads))
            opened.pop_all()
        return cls(descriptor, features, reranker, DESCRIPTORS[manifest.descriptor], scales, streams)

    def close(self) -> None:
        with contextlib.ExitStack() as opened:  # closes the others even if one raises
            for engine in (self.descriptor, self.features, self.reranker):
                opened.callback(engine.close)

    def extract(self, image: Array) -> Features:
        """Return the features of a BGR image (H, W, 3) uint8: one descriptor over all scales, maps of scale 1.

        Raises:
            ImageError: a side is too short, or the model's output for this image is not finite.
        """
        check_size(image, self.kind.min_side_px)
        with np.errstate(invalid="ignore", divide="ignore"):
            (features,) = self.describe((scale, self.kind.network_input(image, scale)) for scale in self.scales)
        if not features.is_finite:
            raise ImageError(
                "its features are not finite; build the bundle with --precision fp32, or check the weights"
            )
        return features

    def describe(self, inputs: Iterable[tuple[float, Array]]) -> list[Features]:
        """Return the features of images of one size, from their network inputs.

        Args:
            inputs: pairs of a scale and the network input (B, 3, H, W) float32 at it, consumed one at a time.
        """
        descriptors, maps = self.at_scales(inputs)
        return [
            Features(self.kind.over_scales(of_image), tuple(array[row] for array in maps))
            for row, of_image in enumerate(descriptors)
        ]

    def at_scales(self, inputs: Iterable[tuple[float, Array]]) -> tuple[Array, tuple[Array, ...]]:
        """Return descriptors (B, S, 2048) at S scales, each of unit norm, and the maps (B, 256, h_s, w_s) of scale 1.

        Args:
            inputs: see `describe`.
        """
        descriptors, maps = list[Array](), tuple[Array, ...]()
        for scale, images in inputs:
            outputs = (self.features if scale == 1 else self.descriptor).run({"image": images})
            descriptors.append(outputs.pop("descriptor"))
            if scale == 1:
                maps = tuple(outputs.values())
        return np.stack(descriptors, axis=1), maps

    def extract_from(self, source: ImageLike, box: Box | None = None, max_side_px: int | None = None) -> Features:
        """Load an image with `images.load` and return its features.

        Raises:
            ImageError: as `images.load` and `extract`; the message begins with the path if the source is a file.
        """
        image = load(source, box, max_side_px)
        with naming(source):
            return self.extract(image)

    def score(self, query: Features, keys: Sequence[Features]) -> Array:
        """Return pair scores (len(keys),) float32 in 0..1 of a query and candidates (`keys`) of one map size.

        Maps are float16 or float32.
        """
        return self._run_reranker(self._feeds("query", [query]) | self._feeds("key", keys))

    def score_rows(
        self, query: Features, collection: Mapped, rows: Sequence[int], done: Callable[[int], None] = lambda _: None
    ) -> Array:
        """Return pair scores (len(rows),) float32 of a query and rows of a collection.

        Args:
            done: called as `done(n)` when n more rows are scored.
        """
        scores: dict[int, float] = {}
        for batch, found in self.score_batches(query, collection, rows):
            scores |= zip(batch, found, strict=True)
            done(len(batch))
        return np.array([scores[row] for row in rows], np.float32)

    def score_batches(
        self,
        query: Features,
        collection: Mapped,
        rows: Sequence[int],
        is_needed: Callable[[int], bool] = lambda _: True,
    ) -> Generator[tuple[list[int], Array], None, None]:
        """Yield rows of a collection and their pair scores (n,) float32 with a query, batch by batch.

        Each batch is scored when the caller requests it, so one thread can alternate between several queries.

        Args:
            is_needed: early stopping: called before the maps of a row are read; the row is skipped if it returns False.
        """
        query_feeds = self._feeds("query", [query])  # the same arrays for each batch: engines cache the query's part
        self._upload(query_feeds)
        batches = batches_of_equal(rows, collection.map_size, is_needed)
        for batch, key_feeds in self._read_ahead(collection, batches):
            yield batch, self._run_reranker(query_feeds | key_feeds)

    def _run_reranker(self, feeds: dict[str, Array]) -> Array:
        """Return pair scores (B,), one per candidate.

        Raises:
            BackendError: the reranker returns another shape, or values that are not finite.
        """
        score = self.reranker.run(feeds)["score"]
        if score.shape != (len(feeds["key_0"]),) or not np.isfinite(score).all():
            raise BackendError("pair scores are not one finite number per candidate; build the bundle again")
        return score

    def _read_ahead(
        self, collection: Mapped, batches: Iterable[list[int]]
    ) -> Iterator[tuple[list[int], dict[str, Array]]]:
        """Yield each batch with its reranker inputs; reads and uploads the next batch while this one is scored."""

        def read(batch: list[int]) -> tuple[list[int], dict[str, Array]]:
            feeds = self._feeds("key", [collection.features(row) for row in batch])
            self._upload(feeds)
            return batch, feeds

        with ThreadPoolExecutor(1) as reader:
            waiting: Future[tuple[list[int], dict[str, Array]]] | None = None
            for batch in batches:
                following = reader.submit(read, batch)
                if waiting:
                    yield waiting.result()
                waiting = following
            if waiting:
                yield waiting.result()

    def _upload(self, feeds: dict[str, Array]) -> None:
        if isinstance(self.reranker, Uploading):
            self.reranker.upload(feeds)

    def _feeds(self, side: str, images: Sequence[Features]) -> dict[str, Array]:
        """Return maps of images of one size as the reranker's `query` or `key` inputs (B, 256, h_s, w_s)."""
        feeds = {}
        for scale, maps in enumerate(zip(*(image.maps for image in images), strict=True)):
            name = f"{side}_{scale}"
            dtype = self.reranker.inputs[name].dtype
            feeds[name] = np.stack(maps, dtype=None if dtype == "floating" else dtype)
        return feeds


def open_pool(bundle: Bundle, name: str, threads: int | None, streams: int = 1) -> EnginePool:
    """Open a graph like `open_graph`, as `streams` engines that share the threads."""
    each = threads if streams == 1 else max(1, usable_threads(threads) // streams)
    with contextlib.ExitStack() as opened:
        pool = EnginePool([opened.enter_context(open_graph(bundle, name, each)) for _ in range(streams)])
        opened.pop_all()
    return pool


def on_gpu(bundle: Bundle) -> bool:
    """Return True if any graph of the bundle runs on a GPU."""
    return any(known(graph.backend).device == "cuda" for graph in bundle.manifest.graphs.values())


def open_graph(bundle: Bundle, name: str, threads: int | None) -> Engine:
    """Open the engine of one of a bundle's graphs.

    If the native pair scorer is unavailable, opens the bundle's fallback graph and warns.

    Raises:
        BackendError: a backend or its device is missing, or the file holds a different graph.
    """
    graph, fallback = bundle.manifest.graphs[name], bundle.manifest.fallback
    try:
        return open_file(bundle, name, graph, threads)
    except BackendError as error:
        if graph.backend != "native" or not fallback:
            raise
        slower = f"until then {fallback.backend} scores pairs by the graph, more slowly"
        warnings.warn(f"{error}; {slower}", CvnetWarning, stacklevel=2)
        return open_file(bundle, name, fallback, threads)


def open_file(bundle: Bundle, name: str, graph: GraphFile, threads: int | None) -> Engine:
    """Open the engine of a graph's file, and check its inputs and outputs.

    Raises:
        BackendError: the backend does not support the precision or cannot open the file, or the signature differs.
    """
    file = bundle.path / graph.file
    if graph.precision not in known(graph.backend).precisions.get(name, {}).values():
        raise BackendError(f"{file}: {graph.backend} cannot run {name} in {graph.precision!r}; build the bundle again")
    engine = open_engine(file, graph.backend, graph.precision, threads)
    try:
        require_signature(name, engine, file)
    except BackendError:
        engine.close()
        raise
    return engine


def batches_of_equal(
    rows: Sequence[int], size_of: Callable[[int], Size], is_needed: Callable[[int], bool] = lambda _: True
) -> Iterator[list[int]]:
    """Yield `rows` in batches whose maps have one size, because padding maps to a common size would change scores.

    Args:
        is_needed: called for the rows of a batch when the batch is requested; rows for which it returns False are
            skipped.
    """
    groups: dict[Size, list[int]] = defaultdict(list)
    for row in rows:
        groups[size_of(row)].append(row)
    for group in groups.values():
        for start in range(0, len(group), BATCH):
            if batch := list(filter(is_needed, group[start : start + BATCH])):
                yield batch
