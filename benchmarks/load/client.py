"""A client of the HTTP API: requests, and what came of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse

from cvnet_engine.engine.errors import BackendError

TIMEOUT_S = 600  # much longer than a search's own deadline
LOST = 0  # in place of a status: no answer, or a part of one


@dataclass(frozen=True)
class Request:
    """What is asked, and of what kind that is.

    Attributes:
        body: with it the request is a POST.
        whole: whether the content of an answer is all that was asked for.
    """

    kind: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    whole: Callable[[bytes], bool] = bool


@dataclass(frozen=True)
class Answer:
    """What came of a request: a status or LOST, and seconds that the client waited for its last byte.

    `retry_after_s` is what a refusal says, None where it says nothing.
    """

    kind: str
    status: int
    seconds: float
    retry_after_s: float | None = None

    @property
    def refused(self) -> bool:
        """Turned away in good order: told when to come again."""
        return self.status == HTTPStatus.SERVICE_UNAVAILABLE and self.retry_after_s is not None


def send(port: int, request: Request, since: float | None = None) -> Answer:
    """Ask, and wait for the whole answer.

    Args:
        since: when the request was due, on `time.perf_counter`; waiting counts from there.
    """
    since = time.perf_counter() if since is None else since
    status, retry_after_s = LOST, None
    with contextlib.suppress(OSError, HTTPException), contextlib.closing(connection(port)) as line:
        response = asked(line, request)
        content = response.read()
        if response.status != HTTPStatus.OK or request.whole(content):
            status = response.status
        if value := response.headers.get("Retry-After"):
            retry_after_s = float(value)
    return Answer(request.kind, status, time.perf_counter() - since, retry_after_s)


def fetch(port: int, request: Request) -> bytes:
    """The content of an answer.

    Raises:
        BackendError: there is none.
    """
    try:
        with contextlib.closing(connection(port)) as line:
            response = asked(line, request)
            content = response.read()
    except (OSError, HTTPException) as error:
        raise BackendError(f"{request.path}: the server does not answer ({error})") from error
    if response.status != HTTPStatus.OK:
        raise BackendError(f"{request.path}: expected 200 from the server, got {response.status}: {content.decode()}")
    return content


def hang_up(port: int, request: Request, sign: bytes) -> None:
    """Ask, and go away at the first line of the answer that starts with a sign."""
    with contextlib.closing(connection(port)) as line:
        next((found for found in asked(line, request) if found.startswith(sign)), None)


def connection(port: int) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)


def asked(line: HTTPConnection, request: Request) -> HTTPResponse:
    """The answer's head."""
    line.request("POST" if request.body else "GET", request.path, request.body or None, dict(request.headers))
    return line.getresponse()
