"""Errors of requests as problem documents (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from cvnet_engine.console import printable
from cvnet_engine.engine.errors import CvnetError, ImageError, RemovedError, ShardsLostError

MEDIA_TYPE = "application/problem+json"
INTERNAL = "internal"  # the kind of unexpected errors
RETRY_AFTER_S = 5


class ProblemError(Exception):
    """An error response: HTTP status, kind (a stable identifier for programs) and detail (a message for people)."""

    def __init__(self, status: HTTPStatus, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.headers = status, kind, detail, headers or {}

    def document(self) -> dict[str, Any]:
        return {
            "type": f"urn:cvnet-engine:problem:{self.kind}",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": printable(self.detail),
        }

    def response(self) -> JSONResponse:
        return JSONResponse(self.document(), int(self.status), dict(self.headers), MEDIA_TYPE)


def invalid(errors: Sequence[Any]) -> ProblemError:
    """Return the problem (422) for invalid fields, from Pydantic's errors."""
    details = (f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg'].removeprefix('Value error, ')}" for e in errors)
    return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "; ".join(details))


def busy(detail: str) -> ProblemError:
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "busy", detail, {"Retry-After": str(RETRY_AFTER_S)})


def gone(detail: str) -> ProblemError:
    return ProblemError(HTTPStatus.GONE, "changed-image", detail)


def problem_of(error: Exception) -> ProblemError:
    """Return the problem for any error. Details of unexpected errors are only in the log."""
    match error:
        case ProblemError():
            return error
        case ImageError():
            return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "unusable-image", str(error))
        case RemovedError():
            return gone(str(error))
        case ShardsLostError():
            return busy(str(error))
        case MemoryError():
            return busy("out of memory; try again with a smaller image, or later")
        case CvnetError():
            return ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "engine", str(error))
        case _:
            return ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL, "internal error; see the log of the server")
