"""Stages of retrieval to time: each method's call, the number of items per call, and the cost of an item."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cvnet_engine.benchmarks.latency import costs
from cvnet_engine.benchmarks.latency.costs import Cost, Network
from cvnet_engine.benchmarks.latency.timing import Calls
from cvnet_engine.benchmarks.methods.comparison import Prepared
from cvnet_engine.benchmarks.methods.method import KEEPING, PUBLISHED, REFERENCE
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.indexing import IndexReport, index
from cvnet_engine.engine.gallery.info import FORMAT as GALLERY_FORMAT
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import FileStamp
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.geometry import DESCRIPTOR_DIM, IMAGE_SCALES
from cvnet_engine.engine.images import MEAN, STD, decode, normalise, rescale
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.engine.retrieval.search import HALF_FROM, DescriptorIndex
from cvnet_engine.engine.retrieval.searcher import Plan, Searcher

ENGINE = "cvnet-engine"  # method name of the code that all bundles share
INDEXED = 2  # images per call of the indexing stage
SEARCHED = 100  # results requested from global search
CHUNK = 16384  # descriptors generated at once
BLOCK_PX = 32  # block side of a synthetic photograph
NO_CALLS: Calls = {}
INFO = GalleryInfo(GALLERY_FORMAT, "benchmark", "benchmark", None)


@dataclass(frozen=True)
class Stage:
    """A stage with a call per method.

    Attributes:
        unit: what one item is; a call processes `items` of them.
        cost: cost of one item.
        baselines: methods that speed-ups refer to, the main one first.
        count: shortlist length, or number of images in the gallery; None if the stage has neither.
    """

    name: str
    unit: str
    cost: Cost
    calls: Calls
    baselines: tuple[str, ...]
    items: int = 1
    count: int | None = None


def image_stages(image: Array) -> Iterator[Stage]:
    """Yield the stages from a file to the network's inputs."""
    size = image.shape[:2]
    data = jpeg(image)
    encoded = np.frombuffer(data, np.uint8)
    decoders: Calls = {ENGINE: partial(decode, data), "OpenCV": lambda: cv2.imdecode(encoded, cv2.IMREAD_COLOR)}
    yield Stage("decode", "image", costs.decode(size, len(data)), decoders, ("OpenCV",))
    scalers = {ENGINE: partial(network_inputs, normalise, image), "NumPy": partial(network_inputs, arithmetic, image)}
    yield Stage("scale, normalise", "image", costs.normalise(size), scalers, ("NumPy",))


def network_inputs(normalise: Callable[[Array], Array], image: Array) -> list[Array]:
    """Return the network inputs at every scale."""
    return [normalise(rescale(image, scale)) for scale in IMAGE_SCALES]


def arithmetic(image: Array) -> Array:
    """Normalise an image as `engine.images.normalise` does, in plain NumPy."""
    return np.ascontiguousarray(((image.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)[None])


def photo(height: int, width: int, seed: int) -> Array:
    """Return a synthetic photograph (height, width, 3) uint8 of coarse blocks and noise, the same on every machine."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (-(-height // BLOCK_PX), -(-width // BLOCK_PX), 3))
    coarse = np.kron(blocks, np.ones((BLOCK_PX, BLOCK_PX, 1)))[:height, :width]
    return np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255).astype(np.uint8)


def jpeg(image: Array) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image[:, :, ::-1]).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def scale_stages(methods: Sequence[Prepared], image: Array, network: Network) -> Iterator[Stage]:
    """Yield the extraction of one image at each scale."""
    engines = {prepared.method.name: prepared.method.engines for prepared in methods}
    kind = methods[0].method.engines.kind
    for scale in IMAGE_SCALES:
        feeds = {"image": kind.network_input(image, scale)}
        whole = scale == 1
        graphs = {name: e.features if whole else e.descriptor for name, e in engines.items()}
        calls = {name: partial(engine.run, feeds) for name, engine in graphs.items()}
        cost = (costs.features if whole else costs.descriptor)(network, feeds["image"].shape[2:])
        yield Stage(f"{'features' if whole else 'descriptor'} ×{scale:g}", "image", cost, calls, (REFERENCE,))


def whole_stages(
    methods: Sequence[Prepared],
    image: Array,
    network: Network,
    more_extract: Calls = NO_CALLS,
    more_pair: Calls = NO_CALLS,
) -> list[Stage]:
    """Return the stages that all others consist of: one image extracted, one pair scored."""
    calls = {prepared.method.name: partial(prepared.method.engines.extract, image) for prepared in methods}
    cost, baselines = costs.extract(network, image.shape[:2]), (REFERENCE, KEEPING)
    extract = Stage("extract, all scales", "image", cost, {**calls, **more_extract}, baselines)
    return [extract, pair_stage(methods, image, more_pair)]


def pair_stage(methods: Sequence[Prepared], image: Array, more: Calls) -> Stage:
    """Return the stage of one pair score; `PUBLISHED` extracts the database image again for every pair."""
    size = image.shape[:2]
    calls: dict[str, Callable[[], object]] = {
        prepared.method.name: partial(prepared.method.engines.score, prepared.query, prepared.keys[:1])
        for prepared in methods
    }
    if methods[0].method.is_reference:
        calls[PUBLISHED] = partial(published_pair, methods[0], image)
    return Stage("pair score", "pair", costs.pair(size, size), {**calls, **more}, (REFERENCE, PUBLISHED, KEEPING))


def published_pair(reference: Prepared, image: Array) -> Array:
    """Extract the database image's map and score the pair, as one step of the published loop."""
    engines = reference.method.engines
    outputs = engines.features.run({"image": normalise(image)})
    return engines.score(reference.query, [Features(outputs["descriptor"][0], (outputs["map_0"][0],))])


@dataclass(frozen=True)
class Shelf:
    """A bundle's method with a gallery on disk that repeats its database images."""

    prepared: Prepared
    gallery: Gallery

    @property
    def engines(self) -> Engines:
        return self.prepared.method.engines

    def rerank(self, k: int) -> Array:
        """Return the pair scores of the first k images."""
        return self.engines.score_rows(self.prepared.query, self.gallery, range(k))

    def query(self, file: Path, k: int) -> Array:
        """Rerank the best k images for a query image file; returns their rows."""
        query = self.engines.extract_from(file)
        with Searcher(self.engines, self.gallery) as searcher:
            return searcher.find(query, Plan(top_k=k, rerank=k)).ranking.rows


def stock(prepared: Prepared, images: int, folder: Path) -> Shelf:
    """Create a gallery of `images` entries."""
    with GalleryWriter(folder, INFO) as writer:
        for row in range(images):
            writer.put(Path(f"/{row}"), FileStamp(0, 0, ""), prepared.keys[row % len(prepared.keys)])
    return Shelf(prepared, Gallery(folder))


def gallery_stages(
    shelves: dict[str, Shelf], image: Array, shortlists: Sequence[int], network: Network
) -> Iterator[Stage]:
    """Yield the stages of reading features, reranking shortlists and a whole query.

    Only bundles are timed, because the reference has no gallery.
    """
    size = image.shape[:2]
    first, longest = next(iter(shelves)), max(shortlists)
    read = {ENGINE: partial(shelves[first].gallery.features, 0)}
    yield Stage("gallery read", "image", costs.gallery_read(size), read, ())
    for k in shortlists:
        calls = {name: partial(shelf.rerank, k) for name, shelf in shelves.items()}
        yield Stage("rerank", "query", costs.pair(size, size) * k, calls, (REFERENCE, PUBLISHED), count=k)
    file = next(iter(shelves.values())).gallery.path / "query.jpg"
    file.write_bytes(jpeg(image))
    cost = costs.extract(network, size) + costs.pair(size, size) * longest
    whole = {name: partial(shelf.query, file, longest) for name, shelf in shelves.items()}
    yield Stage("whole query", "query", cost, whole, (REFERENCE, PUBLISHED), count=longest)


def indexing_stage(methods: Sequence[Prepared], image: Array, network: Network, folder: Path) -> Stage:
    """Return the stage of indexing image files into a new gallery, with reading, extraction and writing in parallel."""
    files = [folder / f"{row}.jpg" for row in range(INDEXED)]
    for file in files:
        file.write_bytes(jpeg(image))
    calls = {e.method.name: IndexingCall(e.method.engines, files, folder / e.method.name) for e in methods}
    return Stage("indexing", "image", costs.extract(network, image.shape[:2]), calls, (), items=INDEXED)


class IndexingCall:
    """A call that indexes the same files into a new gallery each time."""

    def __init__(self, engines: Engines, files: Sequence[Path], folder: Path) -> None:
        self._engines, self._files, self._folder = engines, files, folder
        self._count = 0

    def __call__(self) -> None:
        self._count += 1
        with GalleryWriter(self._folder / str(self._count), INFO) as writer:
            index(self._files, self._engines, writer, None, IndexReport())


def search_stage(images: int, folder: Path) -> Stage:
    """Return global search over synthetic descriptors; NumPy's float32 product and sort is the published baseline."""
    descriptors = synthetic_descriptors(images, folder / f"descriptors-{images}.npy")
    query, prepared = np.array(descriptors[images // 2]), DescriptorIndex(descriptors)
    calls = {
        ENGINE: lambda: prepared.search(query, SEARCHED),
        "NumPy": lambda: np.argsort(-(descriptors @ query)),
    }
    width = costs.HALF if images >= HALF_FROM else costs.FLOAT
    return Stage("global search", "query", costs.search(images, width), calls, ("NumPy",), count=images)


def synthetic_descriptors(images: int, file: Path) -> Array:
    """Return (images, 2048) float32 unit rows in a memory-mapped file."""
    rng = np.random.default_rng(0)
    rows = np.lib.format.open_memmap(file, "w+", np.float32, (images, DESCRIPTOR_DIM))
    for start in range(0, images, CHUNK):
        chunk = rng.standard_normal((min(CHUNK, images - start), DESCRIPTOR_DIM), np.float32)
        rows[start : start + CHUNK] = chunk / np.linalg.norm(chunk, axis=1, keepdims=True)
    return rows
