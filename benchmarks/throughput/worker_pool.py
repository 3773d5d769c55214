"""Worker pools that index or search like users of a bundle, spread over processes, streams and threads."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from cvnet_engine.benchmarks.throughput.indexing import index_batches, index_files
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.contract import Closing
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.engine.retrieval.searcher import Plan, Searcher

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


@dataclass(frozen=True)
class Job:
    """The work of a pool on image files: indexing or, given a gallery, searching and reranking."""

    bundle: Path
    spread: Spread
    gallery: Path | None = None
    shortlist: int = 0


class WorkerPool(Closing):
    """Worker processes with open engines. `seconds` collects the time of every image, in no order."""

    def __init__(self, job: Job) -> None:
        """
        Raises:
            BackendError: a backend or its device is missing.
        """
        self.seconds: list[float] = []
        self._pools = [ProcessPoolExecutor(1, get_context("spawn")) for _ in range(job.spread.processes)]
        try:
            for opened in [pool.submit(prepare, job) for pool in self._pools]:
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
            pool.shutdown()


class Indexer:
    """Indexing in one worker process."""

    def __init__(self, job: Job) -> None:
        spread = job.spread
        self._batch = spread.batch
        threads = spread.threads * spread.streams
        self._engines = Engines.open(Bundle(job.bundle), threads, streams=spread.streams)

    def work(self, files: Sequence[Path]) -> list[float]:
        with tempfile.TemporaryDirectory(prefix="cvnet-bench-") as folder:
            if self._batch > 1:
                return index_batches(files, self._engines, Path(folder), self._batch)
            return index_files(files, self._engines, Path(folder))


class Clients:
    """Searching in one worker process: a client per stream, each with one query at a time."""

    def __init__(self, job: Job, gallery: Path) -> None:
        opened = range(job.spread.streams)
        self._clients = [Client(job.bundle, gallery, job.spread.threads, job.shortlist) for _ in opened]

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


_worker: Indexer | Clients  # of this worker process


def prepare(job: Job) -> None:
    global _worker
    _worker = Clients(job, job.gallery) if job.gallery else Indexer(job)


def work(files: Sequence[Path]) -> list[float]:
    return _worker.work(files) if files else []
