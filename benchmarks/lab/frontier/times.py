"""Times of the stages of indexing and searching, from which the cost of every point is computed.

The stages of an image size are timed in turn, so that a change of the machine's speed affects all of them. Pairs are
scored by the real searcher on a real gallery, so their times include reading, decoding, pooling and scoring.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain, cycle, product
from pathlib import Path

import numpy as np

from benchmarks.lab.frontier.grid import DESCRIPTORS, SHORTLISTS, SIDES_PX, Point, arithmetic
from benchmarks.lab.frontier.scores import MAPPED, EngineCache
from benchmarks.lab.harness import log
from cvnet_engine.benchmarks.accuracy.journal import Facts, Journal
from cvnet_engine.benchmarks.latency.stages import INFO, jpeg, photo
from cvnet_engine.benchmarks.latency.timing import Rounds, take_turns
from cvnet_engine.engine.backends.native.engine import accelerated
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.map_codecs import CODE_FILE
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import FileStamp
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.geometry import DESCRIPTOR_DIM, IMAGE_SCALES
from cvnet_engine.engine.images import load
from cvnet_engine.engine.retrieval import superglobal
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.searcher import Plan, Searcher
from cvnet_engine.engine.retrieval.superglobal import Refinement

PHOTO_PX = (768, 1024)
PHOTOS = 4  # distinct images in a gallery, repeated
IMAGES = 100  # images in a gallery, all scored at coarse resolution
IN_FULL = 20  # candidates scored at full resolution
ROUNDS = Rounds(most=6)

Stage = tuple[str | int | float, ...]  # its name, and what it depends on
Stages = dict[Stage, tuple[Callable[[], object], int]]  # the call, and how often a call performs the stage
Figures = dict[Stage, tuple[float, float, float]]  # median and bounds


@dataclass(frozen=True)
class Times:
    """Seconds of each stage; the stage `bytes` holds the bytes per image in a gallery."""

    figures: Figures

    @property
    def seconds(self) -> Figures:
        """All stages except `bytes`."""
        return {stage: found for stage, found in self.figures.items() if stage[0] != "bytes"}

    def cover(self, point: Point) -> bool:
        """Return True if the point's precision and map format were timed at its image size."""
        return ("full pair", point.max_side_px, point.precision, point.maps) in self.figures

    def query_s(self, point: Point) -> float:
        """Return the seconds from a query's file to its reranked list."""
        return self._described_s(point) + self.median("global") + self.rerank_s(point)

    def rerank_s(self, point: Point) -> float:
        """Return the part of `query_s` after global search."""
        plan, pairs = point.plan, (point.max_side_px, point.precision, point.maps)
        found = self.median("refine", plan.refinement.shortlist) if plan.refinement else 0.0
        if coarse := plan.coarse_pairs(plan.rerank):
            found += coarse * self.median("pooled pair", *pairs)
        return found + plan.full_pairs * self.median("full pair", *pairs)

    def index_s(self, point: Point) -> float:
        """Return the seconds from an image's file to the gallery."""
        return self._described_s(point) + self.median("store", point.max_side_px, point.maps)

    def image_bytes(self, point: Point) -> float:
        return self.median("bytes", point.max_side_px, point.maps)

    def _described_s(self, point: Point) -> float:
        side, engines = point.max_side_px, (point.precision, point.descriptor)
        scales = sum(self.median("describe", side, *engines, scale) for scale in point.scales)
        return self.median("decode", side) + scales

    def median(self, *stage: str | int | float) -> float:
        return self.figures[stage][0]


def take(journal: Journal, identity: Facts, opened: Callable[[], AbstractContextManager[EngineCache]]) -> Times:
    """Return the times of all stages, stored under an identity; image sizes not yet timed are timed now.

    Args:
        opened: opens the engines, if needed.
    """
    with contextlib.ExitStack() as stack:
        engines = cache(lambda: stack.enter_context(opened()))
        figures: Figures = {}
        for side in SIDES_PX:
            facts = time_facts(identity, side)
            stored = journal.get(facts)
            if stored is None:
                log(f"timing images of {side} px")
                stored = packed(measured(engines(), side))
                journal.put(facts, stored)
            figures |= unpacked(stored)
        return Times(figures)


def time_facts(identity: Facts, side_px: int) -> Facts:
    """Return the journal key of an image size's stages.

    It contains the whole grid, because stages are timed in turn: a new stage requires timing all others again.
    """
    return "times", *identity, side_px, tried_here(side_px), SHORTLISTS


def tried_here(side_px: int) -> dict[str, tuple[str, ...]]:
    """Return the grid's `arithmetic`, limited to precisions that this processor has instructions for."""
    return {precision: maps for precision, maps in arithmetic(side_px).items() if accelerated(precision)}


def packed(figures: Figures) -> dict[str, Array]:
    return {"stages": np.array([json.dumps(stage) for stage in figures]), "figures": np.array(list(figures.values()))}


def unpacked(arrays: dict[str, Array]) -> Figures:
    rows = zip(arrays["stages"].tolist(), arrays["figures"].tolist(), strict=True)
    return {tuple(json.loads(stage)): (median, low, high) for stage, (median, low, high) in rows}


def measured(engines: EngineCache, side_px: int) -> Figures:
    """Time every stage of an image size, in turn."""
    tried = tried_here(side_px)
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as opened:
        files = photographs(Path(scratch))
        images = [load(file, max_side_px=side_px) for file in files]
        found = [engines.get(next(iter(tried)), MAPPED).extract(image) for image in images]
        stages: Stages = {("decode", side_px): (lambda: load(files[0], max_side_px=side_px), 1)}
        stages |= describing(engines, tuple(tried), images[0], side_px)
        stages |= refining(found[0].descriptor)
        figures: Figures = {}
        for maps in dict.fromkeys(chain.from_iterable(tried.values())):
            folder, info = Path(scratch) / maps, replace(INFO, maps=maps)
            with GalleryWriter(folder, info) as writer:
                put = putting(writer, found)
                for _ in range(IMAGES):
                    put()
            figures["bytes", side_px, maps] = (stored_bytes(folder) / IMAGES,) * 3
            another = opened.enter_context(GalleryWriter(folder / "another", info))
            stages["store", side_px, maps] = putting(another, found), 1
            gallery = opened.enter_context(Gallery(folder))
            for precision in (precision for precision, kinds in tried.items() if maps in kinds):
                searcher = opened.enter_context(Searcher(engines.get(precision, MAPPED), gallery))
                stages |= searching(searcher, found[0], (side_px, precision, maps))
        return figures | timed(stages)


def photographs(folder: Path) -> list[Path]:
    files = [folder / f"{seed}.jpg" for seed in range(PHOTOS)]
    for seed, file in enumerate(files):
        file.write_bytes(jpeg(photo(*PHOTO_PX, seed)))
    return files


def timed(stages: Stages) -> Figures:
    taken = take_turns({json.dumps(stage): call for stage, (call, _) in stages.items()}, ROUNDS)
    return {
        stage: (interval.median / count, interval.low / count, interval.high / count)
        for (stage, (_, count)), interval in zip(stages.items(), taken.values(), strict=True)
    }


def describing(engines: EngineCache, precisions: Sequence[str], image: Array, side_px: int) -> Stages:
    """Return the stages of extracting an image at each scale; scale 1 includes the maps."""
    stages: Stages = {}
    for precision, descriptor, scale in product(precisions, DESCRIPTORS, IMAGE_SCALES):
        opened = engines.get(precision, descriptor)
        stages["describe", side_px, precision, descriptor, scale] = partial(describe, opened, image, scale), 1
    return stages


def describe(engines: Engines, image: Array, scale: float) -> None:
    engines.at_scales([(scale, engines.kind.network_input(image, scale))])


def refining(query: Array) -> Stages:
    """Return the stages of SuperGlobal's reranking, with random descriptors."""
    stages: Stages = {}
    for count in (*SHORTLISTS, Refinement().shortlist):
        rows = np.random.default_rng(0).standard_normal((count, DESCRIPTOR_DIM), np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        ranking = Ranking.by_similarity(rows @ query)
        stages["refine", count] = partial(superglobal.rerank, query, ranking, rows, Refinement(count)), 1
    return stages


def searching(searcher: Searcher, query: Features, key: tuple[int, str, str]) -> Stages:
    """Return global search, and pair scores including reading, decoding and pooling."""
    none, full, coarse = Plan(rerank=0), Plan(IN_FULL, IN_FULL), Plan(IMAGES, IMAGES, rerank_full=0)
    return {
        ("global",): (partial(searcher.find, query, none), 1),
        ("full pair", *key): (partial(searcher.find, query, full), IN_FULL),
        ("pooled pair", *key): (partial(searcher.find, query, coarse), IMAGES),
    }


def putting(writer: GalleryWriter, found: Sequence[Features]) -> Callable[[], None]:
    """Return a function that adds one more image to a gallery per call."""
    if writer.needs_fit:
        writer.fit(found)
    images = enumerate(cycle(found))

    def put() -> None:
        number, features = next(images)
        writer.put(Path(f"/{number}"), FileStamp(0, 0, ""), features)

    return put


def stored_bytes(folder: Path) -> int:
    """Return the bytes of a gallery's images, without the codec file, whose size is constant."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.name != CODE_FILE)
