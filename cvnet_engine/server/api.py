"""Routes of the API under /v1."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import mimetypes
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from cvnet_engine.engine.presets import PRESETS
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.searcher import Plan, Ranked, Reranked, Scored
from cvnet_engine.engine.retrieval.sharded import Coverage
from cvnet_engine.pages.thumbnail import reduced
from cvnet_engine.server import models, steps
from cvnet_engine.server.collection import Snapshot
from cvnet_engine.server.problems import INTERNAL, MEDIA_TYPE, ProblemError, gone, problem_of
from cvnet_engine.server.scheduler import Event
from cvnet_engine.server.security import cookie_of
from cvnet_engine.server.service import Service, last, unless_gone
from cvnet_engine.server.steps import Described
from cvnet_engine.server.uploads import read

MOST_LOGIN = 1 << 16  # largest body in bytes of a login, which needs no token
IMAGE_READERS = 4  # images read and decoded at the same time; each may take hundreds of MB
IMAGE_HEADERS = {
    "Cache-Control": "private, no-cache",  # revalidated each time, with a 304 response if unchanged
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
logger = logging.getLogger(__name__)
Answer = tuple[str, BaseModel]  # name and data of a server-sent event


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Shared = Annotated[Service, Depends(service_of)]


def accepts(model: type[BaseModel]) -> dict[str, Any]:
    """Return a route's OpenAPI request body: `model` as JSON, or as a form that may contain an image."""
    schema = model.model_json_schema()
    upload = {"image": {"type": "string", "format": "binary", "description": "The image, instead of an id."}}
    form = schema | {"properties": upload | schema["properties"]}
    content = {
        "multipart/form-data": {"schema": form},
        "application/x-www-form-urlencoded": {"schema": schema},
        "application/json": {"schema": schema},
    }
    return {"requestBody": {"required": True, "content": content}}


STREAM = {
    "description": "Results; with `Accept: text/event-stream` the events `global`, `scores` and `result`.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
PROBLEM = {
    "description": "An error.",
    "content": {MEDIA_TYPE: {"schema": models.ProblemDocument.model_json_schema()}},
}
router = APIRouter(prefix="/v1", responses={"default": PROBLEM})


@router.post(
    "/search", response_model=models.Results, responses={200: STREAM}, openapi_extra=accepts(models.SearchRequest)
)
async def search(request: Request, service: Shared) -> Any:
    """Search the gallery with an image. A query from the gallery is left out of its own results."""
    service.scheduler.require_room()
    asked, image = await read(request, models.SearchRequest)
    snapshot = service.served.snapshot
    query = service.query(snapshot, asked.id, image, asked.box)
    selection = await asyncio.to_thread(asked.chosen, snapshot)
    plan = asked.plan(PRESETS[service.about.preset])
    own_row = asked.own_row(snapshot)
    work = steps.search(query, snapshot, plan, selection, own_row)
    answers = Answers(service, snapshot, own_row, asked.top_k, len(snapshot) if selection is None else len(selection))
    return await respond(request, service, work, asked.deadline_s, answers)


@router.post(
    "/rerank", response_model=models.Results, responses={200: STREAM}, openapi_extra=accepts(models.RerankRequest)
)
async def rerank(request: Request, service: Shared) -> Any:
    """Rerank a shortlist from another system by pair scores with the query."""
    service.scheduler.require_room()
    asked, image = await read(request, models.RerankRequest)
    snapshot = service.served.snapshot
    query = service.query(snapshot, asked.id, image, asked.box)
    rows = rows_of(asked.candidates, snapshot)
    plan, selection = Plan(top_k=len(rows), rerank=len(rows)), np.array(sorted(rows), np.int64)
    own_row = asked.own_row(snapshot)
    work = steps.search(query, snapshot, plan, selection, own_row)
    answers = Answers(service, snapshot, own_row, len(rows), len(rows), rows)
    return await respond(request, service, work, asked.deadline_s, answers)


@router.post("/descriptors", response_model=models.Descriptor, openapi_extra=accepts(models.QueryRequest))
async def descriptors(request: Request, service: Shared) -> Any:
    """The global descriptor of an image, for a vector database."""
    service.scheduler.require_room()
    asked, image = await read(request, models.QueryRequest)
    query = service.query(service.served.snapshot, asked.id, image, asked.box)
    described = await unless_gone(request, last(service.events(steps.describe(query), asked.deadline_s)))
    assert isinstance(described, Described)
    return models.Descriptor(descriptor=described.features.descriptor.tolist(), features_id=service.about.features_id)


@router.get("/gallery")
def gallery(service: Shared) -> models.GalleryDescription:
    """The gallery that is searched, and its model."""
    snapshot, about = service.served.snapshot, service.about
    return models.GalleryDescription(
        images=len(snapshot),
        folders=snapshot.folders,
        taken=models.Span(first=span[0], last=span[1]) if (span := snapshot.taken_span) else None,
        model=about.model,
        features_id=about.features_id,
        max_side_px=snapshot.gallery.info.max_side_px,
        scales=snapshot.gallery.info.scales,
        maps=snapshot.gallery.info.maps,
        notice=about.notice,
    )


@router.get("/images")
def images(service: Shared, asked: Annotated[models.ListRequest, Query()]) -> models.ImageList:
    """Images of the gallery in the order in which they were indexed, filtered as in a search."""
    snapshot = service.served.snapshot
    rows = asked.chosen(snapshot)
    matching = range(len(snapshot)) if rows is None else rows.tolist()
    listed = matching[asked.offset : asked.offset + asked.limit]
    return models.ImageList(images=[models.entry(row, snapshot) for row in listed], total=len(matching))


reading = threading.BoundedSemaphore(IMAGE_READERS)
PICTURE: dict[int | str, Any] = {200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}}


@router.get("/images/{id}", response_class=Response, responses=PICTURE)
def original(id: str, request: Request, service: Shared) -> Response:
    """The file of a gallery image, as it was indexed."""
    snapshot = service.served.snapshot
    row = snapshot.row(id)
    kind = mimetypes.guess_type(snapshot.gallery.paths[row].name, strict=False)[0] or "application/octet-stream"
    return picture(request, snapshot, row, kind, lambda data: data)


@router.get("/images/{id}/thumbnail", response_class=Response, responses=PICTURE)
def thumbnail(id: str, request: Request, service: Shared) -> Response:
    """A gallery image, small, as JPEG."""
    snapshot = service.served.snapshot
    row = snapshot.row(id)

    def small(data: bytes) -> bytes:
        found = reduced(io.BytesIO(data))
        if found is None:
            raise gone(f"{snapshot.gallery.paths[row]}: cannot be decoded")
        return found[0]

    return picture(request, snapshot, row, "image/jpeg", small)


def picture(request: Request, snapshot: Snapshot, row: int, kind: str, made: Callable[[bytes], bytes]) -> Response:
    """Return a row's file, converted by `made`, or status 304 if the client has it already.

    Raises:
        ProblemError: 410, see `Snapshot.read`.
    """
    headers = {**IMAGE_HEADERS, "ETag": f'"{snapshot.gallery.stamp(row).digest}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    with reading:
        return Response(made(snapshot.read(row)), media_type=kind, headers=headers)


@router.post(
    "/login",
    status_code=HTTPStatus.NO_CONTENT,
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": models.Login.model_json_schema()}}}},
)
async def login(request: Request, service: Shared) -> Response:
    """Trade the token for a cookie that lasts until the browser or the server is closed."""
    asked, _ = await read(request, models.Login, MOST_LOGIN)
    if not service.access.knows(asked.token):
        raise ProblemError(HTTPStatus.UNAUTHORIZED, "wrong-token", "wrong token")
    response = Response(status_code=HTTPStatus.NO_CONTENT)
    name, is_secure = cookie_of(request.headers), request.url.scheme == "https"
    response.set_cookie(name, service.access.session, httponly=True, samesite="strict", secure=is_secure)
    return response


def rows_of(candidates: list[str], snapshot: Snapshot) -> list[int]:
    """Return the rows of ids or paths, without duplicates.

    Raises:
        ProblemError: 422, a candidate is not in the gallery.
    """
    rows = {name: snapshot.row_of(name) for name in candidates}
    unknown = [name for name, row in rows.items() if row is None]
    if unknown:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "unknown-candidates",
            f"{len(unknown)} of {len(rows)} candidates are not in the gallery, among them {unknown[0]!r}",
        )
    return list(dict.fromkeys(row for row in rows.values() if row is not None))


class Answers:
    """Converter of a search's events to responses."""

    def __init__(
        self,
        service: Service,
        snapshot: Snapshot,
        own_row: int | None,
        top_k: int,
        images: int,
        shortlist: list[int] | None = None,
    ) -> None:
        """
        Args:
            own_row: the query's row if it is a gallery image; None for an upload.
            images: number of images to search.
            shortlist: rows in the order that defines each result's `before`; None for the order of global search.
        """
        self._notice, self._snapshot, self._top_k, self._images = service.about.notice, snapshot, top_k, images
        self._own_row, self._shortlist = own_row, shortlist
        self._missing: models.Missing | None = None
        self._pairs = self._done = 0

    def of(self, event: Event) -> Answer | None:
        match event:
            case Coverage(images, workers, of):
                self._missing = models.Missing(images=images, workers=workers, of=of) if images else None
            case Ranked(before, pairs, seconds, exact):
                self._pairs, self._done = pairs, 0
                return "global", self._results(before, before, seconds, exact)
            case Scored(rows, scores):
                self._done += len(rows)
                found = dict(zip((self._snapshot.id(row) for row in rows), scores.tolist(), strict=True))
                return "scores", models.Scores(done=self._done, total=self._pairs, scores=found)
            case Reranked(before, ranking, seconds, exact):
                return "result", self._results(ranking, before, seconds, exact)
        return None

    def _results(self, ranking: Ranking, before: Ranking, seconds: dict[str, float], exact: bool) -> models.Results:
        order = before.rows.tolist() if self._shortlist is None else self._shortlist
        return models.Results(
            query=None if self._own_row is None else models.entry(self._own_row, self._snapshot),
            results=models.results(ranking.first(self._top_k), order, self._snapshot),
            pairs=self._done,
            images=self._images - (self._missing.images if self._missing else 0),
            way="exact" if exact else "ann",
            partial=self._missing is not None,
            missing=self._missing,
            seconds=seconds,
            notice=self._notice,
        )


async def respond(
    request: Request, service: Service, work: Iterator[Event], seconds: float, answers: Answers
) -> models.Results | Response:
    """Return the results of a search, as one response or as a stream.

    Errors of the query's image are raised before a stream begins, so they set the HTTP status.
    """
    events = service.events(work, seconds)
    if "text/event-stream" not in request.headers.get("accept", ""):
        return await unless_gone(request, results_of(events, answers))
    await unless_gone(request, anext(events))  # the query's features, which clients do not receive
    return EventStream(frames(events, answers, service))


async def results_of(events: AsyncGenerator[Event, None], answers: Answers) -> models.Results:
    async for event in events:
        answer = await asyncio.to_thread(answers.of, event)
    assert answer is not None
    assert isinstance(answer[1], models.Results)
    return answer[1]


async def frames(events: AsyncGenerator[Event, None], answers: Answers, service: Service) -> AsyncGenerator[str, None]:
    """Yield server-sent events; the last is `result`, or `problem` if the search failed."""
    async with aclosing(events):
        try:
            async for event in events:
                if answer := await asyncio.to_thread(answers.of, event):
                    yield f"event: {answer[0]}\ndata: {answer[1].model_dump_json()}\n\n"
        except Exception as error:
            problem = problem_of(error)
            if problem.kind == INTERNAL:
                logger.exception("a search failed on its way")
            service.metrics.errors.labels(problem.kind).inc()
            yield f"event: problem\ndata: {json.dumps(problem.document())}\n\n"


class EventStream(StreamingResponse):
    """Stream of server-sent events, closed as soon as the client disconnects, which cancels its job."""

    def __init__(self, content: AsyncGenerator[str, None]) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._content):
            await super().__call__(scope, receive, send)
