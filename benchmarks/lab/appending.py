"""Times of queries, alone and while another process appends to the gallery."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks.lab.generated import STAMP, Photographs
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.geometry import DESCRIPTOR_DIM
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.engine.retrieval.searcher import Plan, Searcher

RERANKED = 20  # pairs scored per query
APPENDED = 8  # distinct images to append, repeated
FOLDER = Path("/appended")  # path prefix of appended images


@dataclass(frozen=True)
class Answer:
    """Result of a query.

    Attributes:
        images: number of images in the gallery at that time.
        seconds: duration, including opening the gallery.
    """

    images: int
    rows: list[int]
    scores: Array
    seconds: float


@dataclass(frozen=True)
class Beside:
    """Query times alone and beside a writer.

    Attributes:
        alone_s, beside_s: seconds per query.
        appended, appending_s: images that the writer appended, and its time.
        equal: all queries had the same result.
        grown: each query beside the writer saw more images than the one before.
    """

    alone_s: list[float]
    beside_s: list[float]
    appended: int
    appending_s: float
    equal: bool
    grown: bool


def search_beside(path: Path, photographs: Photographs, bundle: Path, rounds: int) -> Beside:
    """Repeat one query, first alone, then while another process appends images as fast as it can.

    Raises:
        GalleryError: a reader saw an incomplete image.
    """
    with Engines.open(Bundle(bundle)) as engines:
        query = engines.extract_from(photographs.query)
        ask(path, engines, query)  # warm-up
        alone = [ask(path, engines, query) for _ in range(rounds)]
        with writer(path, photographs.gallery) as connection:
            beside = [ask(path, engines, query) for _ in range(rounds)]
            connection.send(None)
            appended, appending_s = connection.recv()
    require_whole(path, alone[0].images + appended)
    answers = alone + beside
    return Beside(
        alone_s=[answer.seconds for answer in alone],
        beside_s=[answer.seconds for answer in beside],
        appended=appended,
        appending_s=appending_s,
        equal=all(a.rows == alone[0].rows and np.array_equal(a.scores, alone[0].scores) for a in answers),
        grown=all(a.images < b.images for a, b in itertools.pairwise([alone[-1], *beside])),
    )


def ask(path: Path, engines: Engines, query: Features) -> Answer:
    """Open the gallery, search and rerank; then, not timed, check that the newest image is complete."""
    started = time.perf_counter()
    with Gallery(path) as gallery, Searcher(engines, gallery) as searcher:
        ranking = searcher.find(query, Plan(top_k=RERANKED, rerank=RERANKED)).ranking.first(RERANKED)
        seconds = time.perf_counter() - started
        newest = len(gallery) - 1
        if gallery.paths[newest].is_relative_to(FOLDER):
            gallery.features(newest)
        return Answer(len(gallery), ranking.rows.tolist(), ranking.pair_scores, seconds)


@contextmanager
def writer(path: Path, photographs: Path) -> Iterator[Connection]:
    """Run a process that appends images; it stops at a message and then reports what it did."""
    context = get_context("spawn")
    connection, other = context.Pipe()
    process = context.Process(target=append, args=(path, photographs, other), daemon=True)
    process.start()
    other.close()
    connection.recv()  # the first image is in the gallery
    yield connection
    process.join()


def append(path: Path, photographs: Path, parent: Connection) -> None:
    """Append images until the parent sends a message; the target of a process."""
    with Gallery(photographs) as gallery:
        info, shown = gallery.info, [gallery.features(row) for row in range(min(APPENDED, len(gallery)))]
    rng = np.random.default_rng(0)
    with GalleryWriter(path, info) as opened:
        started = time.perf_counter()
        for number in itertools.count():
            row = rng.standard_normal(DESCRIPTOR_DIM, np.float32)
            features = replace(shown[number % len(shown)], descriptor=row / np.linalg.norm(row))
            opened.put(FOLDER / f"{number:08d}.jpg", STAMP, features)
            if number == 0:
                parent.send(None)
            elif parent.poll():
                break
        seconds = time.perf_counter() - started
    parent.send((number + 1, seconds))


def require_whole(path: Path, images: int) -> None:
    """Raise GalleryError if an appended image is incomplete."""
    with Gallery(path) as gallery:
        assert len(gallery) == images
        for row, name in enumerate(gallery.names()):
            if name.startswith(bytes(FOLDER)):
                gallery.features(row)
