"""State shared by all requests, and the job of a request."""

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
from cvnet_engine.engine.retrieval.searcher import Found, Scored
from cvnet_engine.server.collection import Served, Snapshot
from cvnet_engine.server.metrics import Metrics
from cvnet_engine.server.problems import ProblemError
from cvnet_engine.server.scheduler import Event, Finished, Scheduler
from cvnet_engine.server.security import Access

Result = TypeVar("Result")


@dataclass(frozen=True)
class About:
    """The model, in words and for programs, and how it searches where a request does not say."""

    model: str
    features_id: str
    notice: str | None
    preset: PresetName = "exact"


@dataclass(frozen=True)
class Service:
    about: About
    retriever: Engines
    served: Served
    scheduler: Scheduler
    metrics: Metrics
    access: Access

    def query(
        self, snapshot: Snapshot, id_: str | None, image: bytes | None, box: Box | None
    ) -> Callable[[], Features]:
        """A function that returns the features of an upload or a gallery image; stored features unless there is a box.

        Raises:
            ProblemError: 404 no such image, 410 it has changed, 422 both or neither were sent.
        """
        if (id_ is None) == (image is None):
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "expected either an image to upload or an id"
            )
        max_side_px = snapshot.gallery.info.max_side_px
        if image is not None:
            return lambda: self.retriever.extract_from(image, box, max_side_px)
        assert id_ is not None
        row = snapshot.row(id_)
        if box is None:
            return lambda: snapshot.gallery.features(row)
        return lambda: self.retriever.extract_from(snapshot.read(row), box, max_side_px)

    async def events(self, steps: Iterator[Event], seconds: float) -> AsyncGenerator[Event, None]:
        """The events of a job, which is cancelled where they are not waited for to the end.

        Args:
            seconds: that it may take.

        Raises:
            ProblemError: 503 too many jobs, 504 at the deadline; or what stopped the job.
        """
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Event]()

        def deliver(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed, nobody listens
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
        if isinstance(event, Found):
            for stage, seconds in event.seconds.items():
                self.metrics.stages.labels(stage).observe(seconds)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What the work comes to; it is cancelled when the client goes away. The request's body has been read."""
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
    """The last of a job's events."""
    event: Event = None
    async for event in events:  # noqa: B007
        pass
    return event
