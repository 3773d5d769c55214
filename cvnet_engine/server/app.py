"""ASGI application: API routes, search page, health checks, metrics, and the task that refreshes the gallery."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from http import HTTPMethod, HTTPStatus
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from cvnet_engine import pages
from cvnet_engine.engine.errors import CvnetError, one_line
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.server import api
from cvnet_engine.server.access import Access, Guard
from cvnet_engine.server.problems import ProblemError, invalid, problem_of
from cvnet_engine.server.scheduler import Scheduler
from cvnet_engine.server.served_gallery import ServedGallery
from cvnet_engine.server.service import Metrics, ModelInfo, Service

PAGE = Path(__file__).parent / "page"
HOUSE_STYLE = Path(pages.__file__).parent / "templates" / "page.css"
REFRESH_S = 5.0  # between checks of the gallery's files
OPENING_SHARE = 1 / 20  # largest fraction of time spent on reopening a gallery that keeps changing
logger = logging.getLogger(__name__)


def create_app(
    engines: Engines, served: ServedGallery, model: ModelInfo, access: Access, scheduler: Scheduler | None = None
) -> Guard:
    """Create the ASGI application. It uses `engines` only on the scheduler's thread and does not close it."""
    scheduler = Scheduler() if scheduler is None else scheduler
    metrics = Metrics(queue=lambda: len(scheduler), images=lambda: len(served.snapshot))
    app = FastAPI(
        title="cvnet-engine",
        version=version("cvnet-engine"),
        summary="Instance-level image retrieval with CVNet.",
        docs_url=None,  # it loads scripts from a CDN, as does ReDoc
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = Service(model, engines, served, scheduler, metrics, access)
    app.include_router(api.router)
    add_health(app)
    add_page(app)
    for kind in (ProblemError, CvnetError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, answer_problem)

    def answered(scope: Scope, status: int, problem: str | None) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in HTTPMethod.__members__ else "other"
        metrics.requests.labels(method, route, status).inc()
        if problem:
            metrics.errors.labels(problem).inc()

    return Guard(app, access, answered)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    service: Service = app.state.service
    service.scheduler.start()
    refreshing = asyncio.create_task(keep_current(service.served))
    try:
        yield
    finally:
        refreshing.cancel()
        with suppress(asyncio.CancelledError):
            await refreshing
        await asyncio.to_thread(service.scheduler.close)


async def keep_current(served: ServedGallery) -> None:
    """Open the gallery again whenever its files have changed."""
    pause = REFRESH_S
    while True:
        await asyncio.sleep(pause)
        started = time.perf_counter()
        try:
            await asyncio.to_thread(served.refresh)
        except Exception as error:  # may be temporary, so it is tried again
            logger.warning("the gallery could not be opened again: %s", one_line(error))
        pause = max(REFRESH_S, (time.perf_counter() - started) / OPENING_SHARE)


async def answer_problem(request: Request, error: Exception) -> Response:
    """Return any error as a problem document."""
    match error:
        case RequestValidationError():
            problem = invalid(error.errors())
        case HTTPException():
            status = HTTPStatus(error.status_code)
            problem = ProblemError(status, status.name.lower().replace("_", "-"), status.description, error.headers)
        case _:
            problem = problem_of(error)
    request.app.state.service.metrics.errors.labels(problem.kind).inc()
    return problem.response()


def add_health(app: FastAPI) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The server runs."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz(service: api.Shared) -> dict[str, str]:
        """The server accepts searches."""
        service.scheduler.require_room()
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response)
    async def metrics(service: api.Shared) -> Response:
        """Metrics for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/page/house.css", include_in_schema=False)
    async def house_style() -> FileResponse:
        return FileResponse(HOUSE_STYLE)

    app.mount("/page", StaticFiles(directory=PAGE))
