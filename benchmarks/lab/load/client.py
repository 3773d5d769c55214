"""HTTP client of the load test: sends requests and records outcome and waiting time."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException

from cvnet_engine.benchmarks.serving import Request, ask, connection

LOST = 0  # replaces the status if there was no complete answer


@dataclass(frozen=True)
class Answer:
    """The outcome of a request.

    Attributes:
        status: HTTP status, or LOST.
        seconds: time until the last byte arrived.
        retry_after_s: the Retry-After header; None without it.
    """

    kind: str
    status: int
    seconds: float
    retry_after_s: float | None = None

    @property
    def refused(self) -> bool:
        """True if the server was busy and named a time to try again."""
        return self.status == HTTPStatus.SERVICE_UNAVAILABLE and self.retry_after_s is not None


def send(port: int, request: Request, since: float | None = None) -> Answer:
    """Send a request and wait for the whole answer.

    Args:
        since: when the request was due, on `time.perf_counter`; the wait is counted from there.
    """
    since = time.perf_counter() if since is None else since
    status, retry_after_s = LOST, None
    with contextlib.suppress(OSError, HTTPException), contextlib.closing(connection(port)) as line:
        response = ask(line, request)
        content = response.read()
        if response.status != HTTPStatus.OK or request.whole(content):
            status = response.status
        if value := response.headers.get("Retry-After"):
            retry_after_s = float(value)
    return Answer(request.kind, status, time.perf_counter() - since, retry_after_s)


def hang_up(port: int, request: Request, sign: bytes) -> None:
    """Send a request and disconnect at the first line of the answer that starts with `sign`."""
    with contextlib.closing(connection(port)) as line:
        next((found for found in ask(line, request) if found.startswith(sign)), None)
