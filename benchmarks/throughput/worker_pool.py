"""Worker pools that index or search like users of a bundle, spread over processes, streams and threads."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import numpy as np

from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.contract import Array, Closing
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.indexing import IndexReport, index
from cvnet_engine.engine.gallery.info import FORMAT, GalleryInfo
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import FileStamp
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.images import load
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.engine.retrieval.searcher import Plan, Searcher

INFO = GalleryInfo(FORMAT, "benchmark", "benchmark", None)
BATCH = 4  # images per extraction of the batched variant
MOST = 4  # streams or processes; each needs its own memory


@dataclass(frozen=True)
class Spread:
    """Distribution of work.

    Attributes:
        batch: images of one size per extraction.
        streams: engines per graph and process that run in parallel.
        processes: worker processes.
        threads: CPU threads per engine.
    """

    batch: int
    streams: int
    processes: int
    threads: int

    @property
    def workers(self) -> int:
        """Number of engines that run in parallel."""
        return self.streams * self.processes

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.streams} streams, {self.processes} processes, {self.threads} threads each"


def spreads(threads: int) -> list[Spread]:
    """Return one engine with all threads (single images, then batches), then streams, processes, and both."""
    each = [(1, 1), (MOST, 1), (1, MOST), (2, 2)] if threads >= MOST else [(1, 1), (threads, 1), (1, threads)]
    single = [Spread(1, streams, processes, threads // (streams * processes)) for streams, processes in each]
    return list(dict.fromkeys([single[0], Spread(BATCH, 1, 1, threads), *single[1:]]))


class Worker(Protocol):
    """Interface of the work in one process."""

    def work(self, files: Sequence[Path]) -> list[float]:
        """Process image files; returns the seconds of each."""


class WorkerPool(Closing):
    """Worker processes with open engines. `seconds` collects the time of every image, in no order."""

    def __init__(self, make: Callable[[], Worker], processes: int) -> None:
        """
        Args:
            make: called in each process; must be picklable.

        Raises:
            CvnetError: a worker cannot be made, for instance because a backend is missing.
        """
        self.seconds: list[float] = []
        self._pools = [ProcessPoolExecutor(1, get_context("spawn")) for _ in range(processes)]
        try:
            for opened in [pool.submit(prepare, make) for pool in self._pools]:
                opened.result()
        except BaseException:
            self.close()
            raise

    def run(self, files: Sequence[Path]) -> None:
        """Process all files, an equal share per process."""
        shares = [files[number :: len(self._pools)] for number in range(len(self._pools))]
        for done in [pool.submit(work, share) for pool, share in zip(self._pools, shares, strict=True)]:
            self.seconds += done.result()

    def close(self) -> None:
        for pool in self._pools:
            with contextlib.suppress(BrokenProcessPool):
                pool.submit(stop).result()
            pool.shutdown()


_worker: Worker | None = None  # of this worker process


def prepare(make: Callable[[], Worker]) -> None:
    global _worker
    _worker = make()


def work(files: Sequence[Path]) -> list[float]:
    assert _worker
    return _worker.work(files) if files else []


def stop() -> None:
    """Delete the worker, which ends its own processes, before this process ends."""
    global _worker
    _worker = None


class Indexer:
    """Indexing in one worker process."""

    def __init__(self, bundle: Path, spread: Spread) -> None:
        self._batch = spread.batch
        self._engines = Engines.open(Bundle(bundle), spread.threads * spread.streams, streams=spread.streams)

    def work(self, files: Sequence[Path]) -> list[float]:
        with tempfile.TemporaryDirectory(prefix="cvnet-bench-") as folder:
            if self._batch > 1:
                return index_batches(files, self._engines, Path(folder), self._batch)
            return index_files(files, self._engines, Path(folder))


class Clients:
    """Searching in one worker process: a client per stream, each with one query at a time."""

    def __init__(self, bundle: Path, spread: Spread, gallery: Path, shortlist: int) -> None:
        opened = range(spread.streams)
        self._clients = [Client(bundle, gallery, spread.threads, shortlist) for _ in opened]

    def work(self, files: Sequence[Path]) -> list[float]:
        shares = [files[number :: len(self._clients)] for number in range(len(self._clients))]
        with ThreadPoolExecutor(len(self._clients)) as pool:
            done = pool.map(lambda client, share: [client.query(file) for file in share], self._clients, shares)
            return [seconds for share in done for seconds in share]


class Client:
    """A client that sends queries one after the other."""

    def __init__(self, bundle: Path, gallery: Path, threads: int, shortlist: int) -> None:
        self._engines, self._plan = Engines.open(Bundle(bundle), threads), Plan(top_k=shortlist, rerank=shortlist)
        self._searcher = Searcher(self._engines, Gallery(gallery))

    def query(self, file: Path) -> float:
        """Search with an image file; returns the seconds until its list is reranked."""
        begun = time.perf_counter()
        self._searcher.find(self._engines.extract_from(file), self._plan)
        return time.perf_counter() - begun


def index_files(files: Sequence[Path], engines: Engines, folder: Path) -> list[float]:
    """Index into a new gallery; returns the seconds of each image from its start until it was stored."""
    begun: dict[Path, float] = {}
    seconds: list[float] = []

    def given() -> Iterator[Path]:
        for file in files:
            begun[file] = time.perf_counter()
            yield file

    with GalleryWriter(folder, INFO) as writer:
        index(given(), engines, writer, None, IndexReport(), lambda file: seconds.append(since(begun[file])))
    return seconds


def index_batches(files: Sequence[Path], engines: Engines, folder: Path, batch: int) -> list[float]:
    """Index with `batch` images of one size per extraction; the next batch is read meanwhile."""
    seconds: list[float] = []

    def read(group: Sequence[Path]) -> tuple[float, list[Array]]:
        return time.perf_counter(), list(map(load, group))

    with GalleryWriter(folder, INFO) as writer, ThreadPoolExecutor(1) as reader:
        groups = [files[start : start + batch] for start in range(0, len(files), batch)]
        for group, (begun, images) in zip(groups, reader.map(read, groups), strict=True):
            for file, features in zip(group, extract_batch(engines, images), strict=True):
                writer.put(file, FileStamp(0, 0, ""), features)
                seconds.append(since(begun))
    return seconds


def extract_batch(engines: Engines, images: Sequence[Array]) -> list[Features]:
    """Extract BGR images (H, W, 3) uint8 of one size; the features equal those of `Engines.extract`."""

    def inputs(scale: float) -> Array:
        return np.concatenate([engines.kind.network_input(image, scale) for image in images])

    return engines.describe((scale, inputs(scale)) for scale in engines.scales)


def since(begun: float) -> float:
    return time.perf_counter() - begun
