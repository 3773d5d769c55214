"""Access control: the guard in front of the whole application."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cvnet_engine.server.problems import ProblemError

OPEN = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/v1/login"})  # what needs no token, and /page/
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True)
class Access:
    """Rules of access.

    Attributes:
        host: address that the server binds to, also accepted as its name.
        token: token that requests have to send; None if every user of this machine has access.
        session: content of the page's cookie, used instead of the token; new at each start.
    """

    host: str
    token: str | None = None
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def knows(self, token: str) -> bool:
        return self.token is not None and equal(token, self.token)

    def admits(self, headers: Headers) -> bool:
        """Whether a request brings the token as `Authorization: Bearer`, or the cookie of a login."""
        if self.token is None:
            return True
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        session = cookie_parser(headers.get("cookie", "")).get(cookie_of(headers), "")
        return (scheme.lower() == "bearer" and self.knows(credentials.strip())) or equal(session, self.session)

    def answers_to(self, host: str) -> bool:
        """Whether a Host header names this server.

        A page elsewhere can point a name of its own at this machine (DNS rebinding), but no IP address.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in {"localhost", self.host.lower(), socket.gethostname().lower()} or is_address(name)


def cookie_of(headers: Headers) -> str:
    """What the page's cookie is called, by the port that was asked: browsers keep those of a machine together."""
    port = headers.get("host", "").rpartition(":")[2]
    return f"cvnet_session_{port}" if port.isdecimal() else "cvnet_session"


def equal(one: str, other: str) -> bool:
    """Compares in a time that says nothing of where they differ, nor of their lengths."""
    return hmac.compare_digest(
        *(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (one, other))
    )


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


class Guard:
    """An ASGI application behind the checks, its answers with the headers that browsers need to be told."""

    def __init__(self, app: ASGIApp, access: Access, answered: Callable[[Scope, int, str | None], None]) -> None:
        """
        Args:
            answered: called with each request's scope, the status it got, and the kind of problem that the guard saw.
        """
        self._app, self._access, self._answered = app, access, answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        kind = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope["method"], scope["path"], Headers(scope=scope))
            await self._app(scope, receive, send_with_headers)
        except ProblemError as problem:
            kind = problem.kind
            await problem.response()(scope, receive, send_with_headers)
        finally:
            self._answered(scope, status, kind)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        """
        Raises:
            ProblemError: 400, 401 or 403.
        """
        host = headers.get("host", "")
        if not self._access.answers_to(host):
            raise ProblemError(
                HTTPStatus.BAD_REQUEST, "unknown-host", f"this server is not {host!r}; use its own address"
            )
        origin = headers.get("origin")
        if method not in SAFE_METHODS and origin and origin.partition("://")[2] != host:
            raise ProblemError(HTTPStatus.FORBIDDEN, "foreign-origin", "only this server's own page may send this")
        if path not in OPEN and not path.startswith("/page/") and not self._access.admits(headers):
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED,
                "unauthorised",
                "a token is required: send 'Authorization: Bearer TOKEN'",
                {"WWW-Authenticate": "Bearer"},
            )
