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
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from cvnet_engine.engine.features import Features
from cvnet_engine.engine.presets import PRESETS
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.searcher import Plan, Ranked, Reranked, Scored
from cvnet_engine.engine.retrieval.sharded import Coverage
from cvnet_engine.pages import thumbnail as thumbnails
from cvnet_engine.server import schemas
from cvnet_engine.server import service as jobs
from cvnet_engine.server.access import cookie_of
from cvnet_engine.server.problems import INTERNAL, MEDIA_TYPE, ProblemError, gone, problem_of
from cvnet_engine.server.request_body import read_body
from cvnet_engine.server.scheduler import Event
from cvnet_engine.server.served_gallery import Snapshot
from cvnet_engine.server.service import Service, last, unless_gone

MOST_LOGIN = 1 << 16  # largest body in bytes of a login, which needs no token
IMAGE_READERS = 4  # images read and decoded at the same time; each may take hundreds of MB
IMAGE_HEADERS = {
    "Cache-Control": "private, no-cache",  # revalidated each time, with a 304 response if unchanged
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
logger = logging.getLogger(__name__)
Fields = TypeVar("Fields", bound=schemas.QueryRequest)
NamedData = tuple[str, BaseModel]  # name and data of a server-sent event


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
    "content": {MEDIA_TYPE: {"schema": schemas.ProblemDocument.model_json_schema()}},
}
router = APIRouter(prefix="/v1", responses={"default": PROBLEM})


SEARCH: dict[str, Any] = {"response_model": schemas.SearchResponse, "responses": {200: STREAM}}


@router.post("/search", **SEARCH, openapi_extra=accepts(schemas.SearchRequest))
async def search(request: Request, service: Shared) -> Any:
    """Search the gallery with an image. A query from the gallery is left out of its own results."""
    fields, snapshot, query = await receive(request, service, schemas.SearchRequest)
    selection = await asyncio.to_thread(fields.matching, snapshot)
    plan, own_row = fields.plan(PRESETS[service.model.preset]), fields.own_row(snapshot)
    images = len(snapshot) if selection is None else len(selection)
    responder = Responder(service, snapshot, own_row, fields.top_k, images)
    return await respond(request, jobs.search(query, snapshot, plan, selection, own_row), fields.deadline_s, responder)


@router.post("/rerank", **SEARCH, openapi_extra=accepts(schemas.RerankRequest))
async def rerank(request: Request, service: Shared) -> Any:
    """Rerank a shortlist from another system by pair scores with the query."""
    fields, snapshot, query = await receive(request, service, schemas.RerankRequest)
    rows = rows_of(fields.candidates, snapshot)
    plan, selection = Plan(top_k=len(rows), rerank=len(rows)), np.array(sorted(rows), np.int64)
    own_row = fields.own_row(snapshot)
    responder = Responder(service, snapshot, own_row, len(rows), len(rows), rows)
    return await respond(request, jobs.search(query, snapshot, plan, selection, own_row), fields.deadline_s, responder)


@router.post("/descriptors", response_model=schemas.DescriptorResponse, openapi_extra=accepts(schemas.QueryRequest))
async def descriptors(request: Request, service: Shared) -> Any:
    """Return the global descriptor of an image, for a vector database."""
    fields, _, query = await receive(request, service, schemas.QueryRequest)
    features = await unless_gone(request, last(service.events(jobs.describe(query), fields.deadline_s)))
    assert isinstance(features, Features)
    return schemas.DescriptorResponse(descriptor=features.descriptor.tolist(), features_id=service.model.features_id)


async def receive(
    request: Request, service: Service, model: type[Fields]
) -> tuple[Fields, Snapshot, Callable[[], Features]]:
    """Read a request; return its fields, the gallery's snapshot, and the function that returns the query's features.

    Raises:
        ProblemError: 503 too many jobs, or see `read_body` and `Service.query`.
    """
    service.scheduler.require_room()
    fields, image = await read_body(request, model)
    snapshot = service.served.snapshot
    return fields, snapshot, service.query(snapshot, fields.id, image, fields.box)


@router.get("/gallery")
def gallery(service: Shared) -> schemas.GalleryDescription:
    """Describe the gallery that is searched, and its model."""
    snapshot, model = service.served.snapshot, service.model
    return schemas.GalleryDescription(
        images=len(snapshot),
        folders=snapshot.folders,
        taken=schemas.Span(first=span[0], last=span[1]) if (span := snapshot.taken_span) else None,
        model=model.model,
        features_id=model.features_id,
        max_side_px=snapshot.gallery.info.max_side_px,
        scales=snapshot.gallery.info.scales,
        maps=snapshot.gallery.info.maps,
        notice=model.notice,
    )


@router.get("/images")
def images(service: Shared, fields: Annotated[schemas.ListRequest, Query()]) -> schemas.ImageList:
    """List images of the gallery in the order in which they were indexed, filtered as in a search."""
    snapshot = service.served.snapshot
    rows = fields.matching(snapshot)
    matching = range(len(snapshot)) if rows is None else rows.tolist()
    listed = matching[fields.offset : fields.offset + fields.limit]
    return schemas.ImageList(images=[schemas.entry(row, snapshot) for row in listed], total=len(matching))


reading = threading.BoundedSemaphore(IMAGE_READERS)
PICTURE: dict[int | str, Any] = {200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}}


@router.get("/images/{id}", response_class=Response, responses=PICTURE)
def original(id: str, request: Request, service: Shared) -> Response:
    """Return the file of a gallery image, unchanged since it was indexed."""
    snapshot = service.served.snapshot
    row = snapshot.row(id)
    kind = mimetypes.guess_type(snapshot.gallery.paths[row].name, strict=False)[0] or "application/octet-stream"
    return picture(request, snapshot, row, kind, lambda data: data)


@router.get("/images/{id}/thumbnail", response_class=Response, responses=PICTURE)
def thumbnail(id: str, request: Request, service: Shared) -> Response:
    """Return a small JPEG of a gallery image."""
    snapshot = service.served.snapshot
    row = snapshot.row(id)

    def small(data: bytes) -> bytes:
        reduced = thumbnails.reduced(io.BytesIO(data))
        if reduced is None:
            raise gone(f"{snapshot.gallery.paths[row]}: cannot be decoded")
        return reduced[0]

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
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": schemas.Login.model_json_schema()}}}},
)
async def login(request: Request, service: Shared) -> Response:
    """Exchange the token for a cookie that lasts until the browser or the server is closed."""
    fields, _ = await read_body(request, schemas.Login, MOST_LOGIN)
    if not service.access.knows(fields.token):
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
            f"{len(unknown)} of {len(rows)} candidates not in the gallery, for instance {unknown[0]!r}",
        )
    return list(dict.fromkeys(row for row in rows.values() if row is not None))


class Responder:
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
        self.service, self._snapshot, self._top_k, self._images = service, snapshot, top_k, images
        self._own_row, self._shortlist = own_row, shortlist
        self._missing: schemas.Missing | None = None
        self._pairs = self._done = 0

    def convert(self, event: Event) -> NamedData | None:
        """Return name and data of the server-sent event; None for events that clients do not receive."""
        match event:
            case Coverage(images, workers, of):
                self._missing = schemas.Missing(images=images, workers=workers, of=of) if images else None
            case Ranked(before, pairs, seconds, exact):
                self._pairs, self._done = pairs, 0
                return "global", self._response(before, before, seconds, exact)
            case Scored(rows, scores, coarse=False):
                self._done += len(rows)
                by_id = dict(zip((self._snapshot.id(row) for row in rows), scores.tolist(), strict=True))
                return "scores", schemas.PairScores(done=self._done, total=self._pairs, scores=by_id)
            case Reranked(before, ranking, seconds, exact):
                return "result", self._response(ranking, before, seconds, exact)
        return None

    def _response(
        self, ranking: Ranking, before: Ranking, seconds: dict[str, float], exact: bool
    ) -> schemas.SearchResponse:
        order = before.rows.tolist() if self._shortlist is None else self._shortlist
        return schemas.SearchResponse(
            query=None if self._own_row is None else schemas.entry(self._own_row, self._snapshot),
            results=schemas.ranked_images(ranking.first(self._top_k), order, self._snapshot),
            pairs=self._done,
            images=self._images - (self._missing.images if self._missing else 0),
            way="exact" if exact else "ann",
            partial=self._missing is not None,
            missing=self._missing,
            seconds=seconds,
            notice=self.service.model.notice,
        )


async def respond(
    request: Request, steps: Iterator[Event], seconds: float, responder: Responder
) -> schemas.SearchResponse | Response:
    """Run a search; return its results as one response or as a stream.

    Errors of the query's image are raised before a stream begins, so they set the HTTP status.
    """
    events = responder.service.events(steps, seconds)
    if "text/event-stream" not in request.headers.get("accept", ""):
        return await unless_gone(request, final_response(events, responder))
    await unless_gone(request, anext(events))  # the query's features, which clients do not receive
    return EventStream(frames(events, responder))


async def final_response(events: AsyncGenerator[Event, None], responder: Responder) -> schemas.SearchResponse:
    async for event in events:
        converted = await asyncio.to_thread(responder.convert, event)
    assert converted is not None
    assert isinstance(converted[1], schemas.SearchResponse)
    return converted[1]


async def frames(events: AsyncGenerator[Event, None], responder: Responder) -> AsyncGenerator[str, None]:
    """Yield server-sent events; the last is `result`, or `problem` if the search failed."""
    async with aclosing(events):
        try:
            async for event in events:
                if converted := await asyncio.to_thread(responder.convert, event):
                    yield f"event: {converted[0]}\ndata: {converted[1].model_dump_json()}\n\n"
        except Exception as error:
            problem = problem_of(error)
            if problem.kind == INTERNAL:
                logger.exception("a search failed while its results were streamed")
            responder.service.metrics.errors.labels(problem.kind).inc()
            yield f"event: problem\ndata: {json.dumps(problem.document())}\n\n"


class EventStream(StreamingResponse):
    """Stream of server-sent events, closed as soon as the client disconnects, which cancels its job."""

    def __init__(self, content: AsyncGenerator[str, None]) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._content):
            await super().__call__(scope, receive, send)
