"""State shared by all requests, and the events of a request's job."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from starlette.requests import Request

from cvnet_engine.engine.features import Features
from cvnet_engine.engine.images import Box
from cvnet_engine.engine.presets import PresetName
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.engine.retrieval.searcher import Reranked, Scored
from cvnet_engine.server.collection import Served, Snapshot
from cvnet_engine.server.metrics import Metrics
from cvnet_engine.server.problems import ProblemError
from cvnet_engine.server.scheduler import Event, Finished, Scheduler
from cvnet_engine.server.security import Access

Result = TypeVar("Result")


@dataclass(frozen=True)
class About:
    """Description of the model, its warning, and the default preset of requests."""

    model: str
    features_id: str
    notice: str | None
    preset: PresetName = "exact"


@dataclass(frozen=True)
class Service:
    about: About
    engines: Engines
    served: Served
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
                self._note(event)
                yield event
            if event.error:
                raise event.error
        finally:
            expiry.cancel()
            job.cancel()

    def _note(self, event: Event) -> None:
        if isinstance(event, Scored):
            self.metrics.pairs.inc(len(event.rows))
        if isinstance(event, Reranked):
            for stage, seconds in event.seconds.items():
                self.metrics.stages.labels(stage).observe(seconds)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`, which is cancelled if the client disconnects. Call it after reading the body.

    Raises:
        ProblemError: 408, the client disconnected.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ProblemError(HTTPStatus.REQUEST_TIMEOUT, "client-gone", "the client went away")
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait((working, leaving))


async def left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def last(events: AsyncGenerator[Event, None]) -> Event:
    """Return the last of a job's events; None without any."""
    event: Event = None
    async for event in events:  # noqa: B007
        pass
    return event
