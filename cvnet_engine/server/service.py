"""State shared by all requests: engines, gallery, scheduler and metrics; and the jobs that requests submit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.images import Box
from cvnet_engine.engine.presets import PresetName
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.engine.retrieval.searcher import Plan, Ranked, Reranked, Scored, Stages
from cvnet_engine.server.access import Access
from cvnet_engine.server.problems import ProblemError
from cvnet_engine.server.scheduler import Event, Finished, Scheduler
from cvnet_engine.server.served_gallery import ServedGallery, Snapshot

BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
T = TypeVar("T")


@dataclass(frozen=True)
class ModelInfo:
    """The model's name, the id of its features, its warning, and the default preset of requests."""

    model: str
    features_id: str
    notice: str | None
    preset: PresetName = "exact"


class Metrics:
    """Prometheus metrics. Pairs per second are the rate of `cvnet_pairs`."""

    def __init__(self, queue: Callable[[], int], images: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "cvnet_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self.stages = Histogram(
            "cvnet_stage_seconds", "Work for one request, by stage.", ("stage",), buckets=BUCKETS_S, registry=registry
        )
        self.pairs = Counter("cvnet_pairs", "Pairs scored.", registry=registry)
        self.errors = Counter("cvnet_errors", "Problems, by kind.", ("kind",), registry=registry)
        Gauge("cvnet_queue", "Unfinished requests that need the engines.", registry=registry).set_function(queue)
        Gauge("cvnet_gallery_images", "Images in the gallery.", registry=registry).set_function(images)

    def text(self) -> bytes:
        return generate_latest(self._registry)


@dataclass(frozen=True)
class Service:
    model: ModelInfo
    engines: Engines
    served: ServedGallery
    scheduler: Scheduler
    metrics: Metrics
    access: Access

    def query(
        self, snapshot: Snapshot, id_: str | None, image: bytes | None, box: Box | None
    ) -> Callable[[], Features]:
        """Return a function that returns the query's features.

        A gallery image's stored features are used unless there is a box, which needs the image's file.

        Args:
            id_, image: id of a gallery image, or the bytes of an upload.

        Raises:
            ProblemError: 404 unknown id, 422 both or neither of `id_` and `image` given. The returned function raises
                410 if the image's file has changed.
        """
        if (id_ is None) == (image is None):
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "expected either an image to upload or an id"
            )
        max_side_px = snapshot.gallery.info.max_side_px
        if image is not None:
            return lambda: self.engines.extract_from(image, box, max_side_px)
        assert id_ is not None
        row = snapshot.row(id_)
        if box is None:
            return lambda: snapshot.gallery.features(row)
        return lambda: self.engines.extract_from(snapshot.read(row), box, max_side_px)

    async def events(self, steps: Iterator[Event], seconds: float) -> AsyncGenerator[Event, None]:
        """Submit a job and yield its events. Closing the generator cancels the job.

        Args:
            seconds: deadline.

        Raises:
            ProblemError: 503 too many jobs, 504 deadline exceeded.
            Exception: the error that stopped the job.
        """
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Event]()

        def deliver(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(queue.put_nowait, event)

        def expire() -> None:
            job.cancel()
            late = ProblemError(HTTPStatus.GATEWAY_TIMEOUT, "deadline", "not finished by the deadline; lower rerank")
            queue.put_nowait(Finished(late))

        job = self.scheduler.submit(steps, deliver)
        expiry = loop.call_later(seconds, expire)
        try:
            while not isinstance(event := await queue.get(), Finished):
                self._count(event)
                yield event
            if event.error:
                raise event.error
        finally:
            expiry.cancel()
            job.cancel()

    def _count(self, event: Event) -> None:
        if isinstance(event, Scored) and not event.coarse:
            self.metrics.pairs.inc(len(event.rows))
        if isinstance(event, Reranked):
            for stage, seconds in event.seconds.items():
                self.metrics.stages.labels(stage).observe(seconds)


def describe(query: Callable[[], Features]) -> Iterator[Features]:
    """Yield the features of a query: the only step of this job."""
    yield query()


def search(
    query: Callable[[], Features], snapshot: Snapshot, plan: Plan, selection: Array | None, own_row: int | None
) -> Iterator[Event]:
    """Yield the query's features, then the steps of the searcher.

    Args:
        selection, own_row: see `Searcher.steps`.
    """
    stages = Stages()
    with stages.timed("features"):
        features = query()
    yield features
    with contextlib.closing(snapshot.searcher.steps(features, plan, selection, own_row)) as steps:
        for step in steps:
            yield replace(step, seconds=stages.seconds | step.seconds) if isinstance(step, Ranked | Reranked) else step


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, which is cancelled if the client disconnects. Call it after reading the body.

    Raises:
        ProblemError: 408, the client disconnected.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ProblemError(HTTPStatus.REQUEST_TIMEOUT, "client-gone", "the client disconnected")
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait((working, leaving))


async def disconnected(request: Request) -> None:
    """Return when the client disconnects."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def last(events: AsyncGenerator[Event, None]) -> Event:
    """Return the last of a job's events; None without any."""
    event: Event = None
    async for event in events:  # noqa: B007
        pass
    return event
