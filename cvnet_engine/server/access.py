"""Access control: checks of host, origin and token before every request."""

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

OPEN = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/v1/login"})  # paths that need no token, besides /page/
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
    """Access rules.

    Attributes:
        host: address that the server binds to, also accepted in the Host header.
        token: token that requests must send; None to require none.
        session: value of the page's cookie, accepted instead of the token; random at each start.
    """

    host: str
    token: str | None = None
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def knows(self, token: str) -> bool:
        return self.token is not None and equal(token, self.token)

    def admits(self, headers: Headers) -> bool:
        """Return True if a request has the token as `Authorization: Bearer`, or the cookie of a login."""
        if self.token is None:
            return True
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        session = cookie_parser(headers.get("cookie", "")).get(cookie_of(headers), "")
        return (scheme.lower() == "bearer" and self.knows(credentials.strip())) or equal(session, self.session)

    def answers_to(self, host: str) -> bool:
        """Return True if a Host header names this server.

        This prevents DNS rebinding, where a foreign page's host name resolves to this machine. IP addresses are safe.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in {"localhost", self.host.lower(), socket.gethostname().lower()} or is_address(name)


def cookie_of(headers: Headers) -> str:
    """Return the name of the page's cookie. It contains the port, because browsers share cookies between ports."""
    port = headers.get("host", "").rpartition(":")[2]
    return f"cvnet_session_{port}" if port.isdecimal() else "cvnet_session"


def equal(one: str, other: str) -> bool:
    """Compare in a time that does not depend on the contents; hashing hides the lengths, too."""
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
    """ASGI middleware that checks access and adds security headers to every response."""

    def __init__(self, app: ASGIApp, access: Access, answered: Callable[[Scope, int, str | None], None]) -> None:
        """
        Args:
            answered: called after each request with its scope, its status, and the kind of problem raised, or None.
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
        """Check host, origin and token.

        Raises:
            ProblemError: 400 unknown host, 403 foreign origin, 401 missing or wrong token.
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
