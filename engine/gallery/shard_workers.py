"""Search on a Ray cluster: shard workers that each search some shards of a gallery and compute their pair scores.

Every machine of the cluster must see bundle and gallery under the same paths. The calling process reads only the
tables of the gallery; the workers scan descriptors and read maps.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.cluster import Cluster, Worker, spawner
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import BackendError, ShardsLostError, one_line
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.columns import ShardRange
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.retrieval.engines import Mapped
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.search import DescriptorIndex
from cvnet_engine.engine.retrieval.sharded import AHEAD, ShardedSearcher

RANGES_KEPT = 4  # per worker: the newest, and those that running searches started with
PAUSE_S = 2.0  # before a worker that died is restarted
# concurrent calls per worker, by kind, so that a search does not wait for pair scores
GROUPS = {"search": 1, "score": AHEAD}
GROUP_OF = {"open": "search", "search": "search", "descriptors": "search", "score": "score"}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """Opened shards of a worker; `pooled` has their maps at coarse resolution."""

    gallery: Gallery
    pooled: Mapped
    index: DescriptorIndex


class ShardWorker(Worker):
    """A worker that searches shards of galleries; handles several calls at once."""

    def __init__(self, bundle: Path, threads: int) -> None:
        super().__init__(bundle, threads)
        self._scoring = threading.Lock()  # the engines serve one thread at a time
        self._opened = lru_cache(RANGES_KEPT)(self._open)

    def watch(self) -> None:
        """Block forever, so that a caller waiting for it gets an error when the process dies."""
        threading.Event().wait()

    def open(self, shards: ShardRange) -> None:
        """Open shards before the first search."""
        self._opened(shards)

    def search(self, shards: ShardRange, descriptor: Array, k: int, selection: Array | None) -> Ranking:
        return self._opened(shards).index.search(descriptor, k, selection)

    def descriptors(self, shards: ShardRange, rows: Array) -> Array:
        return self._opened(shards).gallery.descriptors[rows]

    def score(self, shards: ShardRange, query: Features, rows: Sequence[int], coarse: bool) -> Array:
        opened = self._opened(shards)
        images = opened.pooled if coarse else opened.gallery
        keys = [images.features(row) for row in rows]
        with self._scoring:
            return self.engines.score(query, keys)

    def _open(self, shards: ShardRange) -> Opened:
        """Open shards; the gallery is closed with the last reference.

        Raises:
            ShardsLostError: the shards have changed.
            GalleryError: the gallery cannot be read.
        """
        gallery = Gallery(shards.gallery, shards)
        index = DescriptorIndex(gallery.descriptors)
        opened = Opened(gallery, gallery.pooled(), index)
        weakref.finalize(opened, gallery.close)
        return opened


class RestartedWorker:
    """A shard worker that a thread restarts whenever its process dies."""

    def __init__(self, spawn: Callable[[], Any]) -> None:
        """Start the worker in the background.

        Args:
            spawn: makes a Ray actor of `ShardWorker`, which may have to wait for free CPUs.
        """
        self._spawn = spawn
        self._spawned: Any = None
        self._closed = threading.Event()
        self.actor: Any = None  # the actor, None while it is not running
        self.started: Future[None] = Future()  # done with the first start
        self._thread = threading.Thread(target=self._keep_running, name="worker", daemon=True)
        self._thread.start()

    def _keep_running(self) -> None:
        import ray

        while not self._closed.is_set():
            self._spawned = self._spawn()
            try:
                ray.get(self._spawned.start.remote())
                self.actor, ended = self._spawned, self._spawned.watch.remote()
                if not self.started.done():
                    self.started.set_result(None)
                while self.actor and not self._closed.is_set() and not ray.wait([ended], timeout=PAUSE_S)[0]:
                    pass
                self._note("its process died")
            except ray.exceptions.RayError as error:
                reason = raised(error) or BackendError(f"a shard worker of the Ray cluster died ({one_line(error)})")
                if not self.started.done():
                    self.started.set_exception(reason)
                self._note(str(reason))
            self.actor = None
            ray.kill(self._spawned)
            self._closed.wait(PAUSE_S)

    def _note(self, reason: str) -> None:
        if not self._closed.is_set():
            logger.warning("a shard worker is down (%s); restarting it", reason)

    def lose(self, worker: Any) -> None:
        """Record that a worker did not answer."""
        if self.actor is worker:
            self.actor = None

    def close(self) -> None:
        import ray

        self._closed.set()
        if self._spawned:
            ray.kill(self._spawned)
        self._thread.join(2 * PAUSE_S)


class WorkerShards:
    """Shards of a gallery and the worker that searches them: implements `Shards`."""

    def __init__(self, worker: RestartedWorker, shards: ShardRange) -> None:
        self._worker, self._shards = worker, shards
        self._changed = False

    def __len__(self) -> int:
        return len(self._shards)

    def is_here(self) -> bool:
        return self._worker.actor is not None and not self._changed

    def open(self) -> Future[None]:
        return self._ask("open")

    def search(self, descriptor: Array, k: int, selection: Array | None) -> Future[Ranking]:
        return self._ask("search", descriptor, k, selection)

    def descriptors(self, rows: Array) -> Future[Array]:
        return self._ask("descriptors", rows)

    def score(self, query: Any, rows: list[int], coarse: bool) -> Future[Array]:
        return self._ask("score", query, rows, coarse)

    def _ask(self, method: str, *arguments: Any) -> Future[Any]:
        """Call a method of the worker; the future raises ShardsLostError if the worker died."""
        answer: Future[Any] = Future()
        worker = self._worker.actor
        if worker is None:
            answer.set_exception(ShardsLostError("a shard worker has died"))
            return answer

        def deliver(theirs: Future[Any]) -> None:
            error = theirs.exception()
            if error is None:
                answer.set_result(theirs.result())
                return
            found = raised(error)
            if found is None:
                self._worker.lose(worker)
            self._changed |= isinstance(found, ShardsLostError)
            answer.set_exception(found or ShardsLostError(f"a shard worker has died ({one_line(error)})"))

        call = getattr(worker, method).options(concurrency_group=GROUP_OF[method])
        call.remote(self._shards, *arguments).future().add_done_callback(deliver)
        return answer


@dataclass(frozen=True)
class ShardWorkers:
    """The shard workers of a cluster."""

    workers: Sequence[RestartedWorker]
    send: Callable[[Features], Any]

    def searcher(self, gallery: Gallery) -> ShardedSearcher:
        """Return a searcher of a gallery whose shards are divided among the workers.

        Raises:
            GalleryError: a worker cannot read its shards.
        """
        ranges = gallery.shard_ranges(len(self.workers))
        parts = [WorkerShards(worker, shards) for worker, shards in zip(self.workers, ranges, strict=False)]
        for opening in wait([part.open() for part in parts]).done:
            error = opening.exception()
            if error and not isinstance(error, ShardsLostError):
                raise error
        return ShardedSearcher(gallery.map_size, parts, self.send)


@contextlib.contextmanager
def shard_workers(bundle: Bundle, cluster: Cluster) -> Iterator[ShardWorkers]:
    """Start shard workers, spread over the machines of a cluster.

    Raises:
        BackendError: Ray is not installed, the cluster cannot be reached, or no machine has room for a worker.
        CvnetError: the bundle cannot be opened there.
    """
    options = {"scheduling_strategy": "SPREAD", "concurrency_groups": GROUPS}
    with spawner(ShardWorker, bundle, cluster, **options) as (spawn, size):
        import ray

        workers = [RestartedWorker(spawn) for _ in range(size)]
        try:
            for worker in workers:
                worker.started.result()
            yield ShardWorkers(workers, ray.put)
        finally:
            for worker in workers:
                worker.close()


def raised(error: BaseException) -> Exception | None:
    """Return the error that a method of a worker raised, which Ray wraps; None if the worker died."""
    import ray

    return error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
