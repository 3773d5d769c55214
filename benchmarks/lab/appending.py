"""Times of queries while another process appends to the gallery, and without it."""

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

RERANKED = 20  # pairs of a query
APPENDED = 8  # images whose maps are appended, over and over
FOLDER = Path("/appended")  # of the images that are


@dataclass(frozen=True)
class Answer:
    """What a query found in the gallery as it was: rows and scores, in how many seconds, opening included."""

    images: int
    rows: list[int]
    scores: Array
    seconds: float


@dataclass(frozen=True)
class Beside:
    """Seconds of the queries alone and beside the writer, and what that appended in how many seconds.

    `equal` says whether all answers were the same, `grown` whether each one's gallery had more images than the last.
    """

    alone_s: list[float]
    beside_s: list[float]
    appended: int
    appending_s: float
    equal: bool
    grown: bool


def search_beside(path: Path, photographs: Photographs, bundle: Path, rounds: int) -> Beside:
    """Ask for the same photograph again and again: alone, then while images are appended as fast as they can be.

    Raises:
        GalleryError: an image that a reader saw was not whole.
    """
    with Engines.open(Bundle(bundle)) as retriever:
        query = retriever.extract_from(photographs.query)
        ask(path, retriever, query)  # once more than timed
        alone = [ask(path, retriever, query) for _ in range(rounds)]
        with writer(path, photographs.gallery) as connection:
            beside = [ask(path, retriever, query) for _ in range(rounds)]
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


def ask(path: Path, retriever: Engines, query: Features) -> Answer:
    """Open the gallery, search, rerank; and, not timed, read the newest image, which must be whole."""
    started = time.perf_counter()
    with Gallery(path) as gallery, Searcher(retriever, gallery) as searcher:
        ranking = searcher.find(query, Plan(top_k=RERANKED, rerank=RERANKED)).ranking.first(RERANKED)
        seconds = time.perf_counter() - started
        newest = len(gallery) - 1
        if gallery.paths[newest].is_relative_to(FOLDER):
            gallery.features(newest)
        return Answer(len(gallery), ranking.rows.tolist(), ranking.pair_scores, seconds)


@contextmanager
def writer(path: Path, photographs: Path) -> Iterator[Connection]:
    """A process that appends from now on; it ends when it is sent something, and tells what it did."""
    context = get_context("spawn")
    connection, other = context.Pipe()
    process = context.Process(target=append, args=(path, photographs, other), daemon=True)
    process.start()
    other.close()
    connection.recv()  # the first is in
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
    """Raise GalleryError where an appended image is not whole."""
    with Gallery(path) as gallery:
        assert len(gallery) == images
        for row, name in enumerate(gallery.names()):
            if name.startswith(bytes(FOLDER)):
                gallery.features(row)
