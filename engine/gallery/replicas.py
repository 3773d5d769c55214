"""A gallery searched by a Ray cluster: each replica holds a share of its shards, and engines that score pairs of them.

Bundle and gallery lie in folders that every machine of the cluster sees under the same names. This process opens the
gallery's tables; descriptors are scanned, and maps read, by the replica that holds them.
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
from cvnet_engine.engine.cluster import Cluster, Worker, hiring
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import BackendError, PartLostError, one_line
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.share import Share
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.retriever import Mapped
from cvnet_engine.engine.retrieval.search import DescriptorIndex
from cvnet_engine.engine.retrieval.spread import AHEAD, SpreadSearcher

SHARES_KEPT = 4  # open in a replica: the newest, and those that searches under way began with
PAUSE_S = 2.0  # before a replica is started in the place of one that died
# kinds of work, and how many of each a replica is at once: a search does not wait for pairs
GROUPS = {"search": 1, "score": AHEAD}
GROUP_OF = {"open": "search", "search": "search", "descriptors": "search", "score": "score"}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """A share of a gallery, laid out for search; `pooled` has its maps at half resolution."""

    gallery: Gallery
    pooled: Mapped
    index: DescriptorIndex


class Replica(Worker):
    """Searches shares of galleries, several calls at once."""

    def __init__(self, bundle: Path, threads: int) -> None:
        super().__init__(bundle, threads)
        self._scoring = threading.Lock()  # the engines serve one thread at a time
        self._opened = lru_cache(SHARES_KEPT)(self._open)

    def watch(self) -> None:
        """Not to return: whoever waits for it gets an error when the process dies."""
        threading.Event().wait()

    def open(self, share: Share) -> None:
        """Have a share at hand before it is searched."""
        self._opened(share)

    def search(self, share: Share, descriptor: Array, k: int, among: Array | None) -> Ranking:
        return self._opened(share).index.search(descriptor, k, among)

    def descriptors(self, share: Share, rows: Array) -> Array:
        return self._opened(share).gallery.descriptors[rows]

    def score(self, share: Share, query: Features, rows: Sequence[int], rough: bool) -> Array:
        opened = self._opened(share)
        images = opened.pooled if rough else opened.gallery
        keys = [images.features(row) for row in rows]
        with self._scoring:
            return self.retriever.score(query, keys)

    def _open(self, share: Share) -> Opened:
        """Its gallery is closed when nobody holds it any more.

        Raises:
            PartLostError: it is not in the gallery any more.
            GalleryError: it cannot be read.
        """
        gallery = Gallery(share.gallery, share)
        index = DescriptorIndex(gallery.descriptors)
        opened = Opened(gallery, gallery.pooled(), index)
        weakref.finalize(opened, gallery.close)
        return opened


class Seat:
    """A replica's place: the process that has it, and another one in its stead when that dies. A thread sees to it."""

    def __init__(self, hire: Callable[[], Any]) -> None:
        """
        Args:
            hire: makes a Ray actor of `Replica`, which may have to wait for room.
        """
        self._hire = hire
        self._hired: Any = None
        self._closed = threading.Event()
        self.replica: Any = None  # the actor, from when it has started until it dies
        self.started: Future[None] = Future()  # the first one
        self._thread = threading.Thread(target=self._keep_filled, name="replica", daemon=True)
        self._thread.start()

    def _keep_filled(self) -> None:
        import ray

        while not self._closed.is_set():
            self._hired = self._hire()
            try:
                ray.get(self._hired.start.remote())
                self.replica, ended = self._hired, self._hired.watch.remote()
                if not self.started.done():
                    self.started.set_result(None)
                while self.replica and not self._closed.is_set() and not ray.wait([ended], timeout=PAUSE_S)[0]:
                    pass
                self._note("it has died")
            except ray.exceptions.RayError as error:
                reason = raised(error) or BackendError(f"a replica of the Ray cluster died ({one_line(error)})")
                if not self.started.done():
                    self.started.set_exception(reason)
                self._note(str(reason))
            self.replica = None
            ray.kill(self._hired)
            self._closed.wait(PAUSE_S)

    def _note(self, reason: str) -> None:
        if not self._closed.is_set():
            logger.warning("a replica is missing (%s); another one is started", reason)

    def lose(self, replica: Any) -> None:
        """To be called where it did not answer."""
        if self.replica is replica:
            self.replica = None

    def close(self) -> None:
        import ray

        self._closed.set()
        if self._hired:
            ray.kill(self._hired)
        self._thread.join(2 * PAUSE_S)


class HeldShare:
    """A share of a gallery with the replica that holds it: a `Part`."""

    def __init__(self, seat: Seat, share: Share) -> None:
        self._seat, self._share = seat, share
        self._changed = False

    def __len__(self) -> int:
        return len(self._share)

    def is_here(self) -> bool:
        return self._seat.replica is not None and not self._changed

    def open(self) -> Future[None]:
        return self._ask("open")

    def search(self, descriptor: Array, k: int, among: Array | None) -> Future[Ranking]:
        return self._ask("search", descriptor, k, among)

    def descriptors(self, rows: Array) -> Future[Array]:
        return self._ask("descriptors", rows)

    def score(self, query: Any, rows: list[int], rough: bool) -> Future[Array]:
        return self._ask("score", query, rows, rough)

    def _ask(self, method: str, *arguments: Any) -> Future[Any]:
        """What a method of the replica gives."""
        answer: Future[Any] = Future()
        replica = self._seat.replica
        if replica is None:
            answer.set_exception(PartLostError("a replica has died"))
            return answer

        def deliver(theirs: Future[Any]) -> None:
            error = theirs.exception()
            if error is None:
                answer.set_result(theirs.result())
                return
            found = raised(error)
            if found is None:
                self._seat.lose(replica)
            self._changed |= isinstance(found, PartLostError)
            answer.set_exception(found or PartLostError(f"a replica has died ({one_line(error)})"))

        call = getattr(replica, method).options(concurrency_group=GROUP_OF[method])
        call.remote(self._share, *arguments).future().add_done_callback(deliver)
        return answer


@dataclass(frozen=True)
class Replicas:
    """A cluster's replicas."""

    seats: Sequence[Seat]
    send: Callable[[Features], Any]

    def searcher(self, gallery: Gallery) -> SpreadSearcher:
        """A gallery, its images shared out among the replicas.

        Raises:
            GalleryError: a replica cannot read its share.
        """
        shares = gallery.shares(len(self.seats))
        parts = [HeldShare(seat, share) for seat, share in zip(self.seats, shares, strict=False)]
        for opening in wait([part.open() for part in parts]).done:
            error = opening.exception()
            if error and not isinstance(error, PartLostError):
                raise error
        return SpreadSearcher(gallery.map_size, parts, self.send)


@contextlib.contextmanager
def replicas(bundle: Bundle, cluster: Cluster) -> Iterator[Replicas]:
    """Replicas of a cluster, on as many of its machines as may be, once they have started.

    Raises:
        BackendError: Ray is not here, the cluster not to be reached, or no machine of it has room for a replica.
        CvnetError: the bundle cannot be opened there.
    """
    options = {"scheduling_strategy": "SPREAD", "concurrency_groups": GROUPS}
    with hiring(Replica, bundle, cluster, **options) as (hire, size):
        import ray

        seats = [Seat(hire) for _ in range(size)]
        try:
            for seat in seats:
                seat.started.result()
            yield Replicas(seats, ray.put)
        finally:
            for seat in seats:
                seat.close()


def raised(error: BaseException) -> Exception | None:
    """What a replica raised, where it did that: a method's error comes wrapped in Ray's. None where it has died."""
    import ray

    return error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
