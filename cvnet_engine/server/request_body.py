"""Parser of request bodies, which limits their size during reception and keeps them in memory, never on disk."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from cvnet_engine.server.problems import ProblemError, invalid

MAX_UPLOAD_BYTES = 32 * 2**20
MAX_FIELDS = 2000  # a rerank form has one field per candidate

Body = TypeVar("Body", bound=BaseModel)


class MemoryParser(MultiPartParser):
    """Starlette's parser, with the limit for temporary files above the largest upload."""

    spool_max_size = MAX_UPLOAD_BYTES + 1


async def bounded(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """Yield the chunks of a body of at most `most` bytes.

    Raises:
        ProblemError: 413, as soon as the body is known to be larger.
    """
    require_short(int(request.headers.get("content-length", 0)), most)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        require_short(received, most)
        yield chunk


def require_short(length: int, most: int) -> None:
    if length > most:
        raise ProblemError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", f"more than {most:,} bytes; send a smaller image, or less"
        )


async def read_body(request: Request, model: type[Body], most: int = MAX_UPLOAD_BYTES) -> tuple[Body, bytes | None]:
    """Read a JSON or form body; return its validated fields, and the bytes of the uploaded image if there is one.

    Args:
        most: largest body in bytes.

    Raises:
        ProblemError: 400 malformed body, 413 too large, 415 unsupported content type, 422 invalid fields.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    image: bytes | None = None
    try:
        match kind:
            case "application/json":
                fields = json.loads(await whole(request, most))
                if isinstance(fields, dict) and len(fields) > MAX_FIELDS:
                    raise ValueError  # the 422 response would list every unknown field
            case "application/x-www-form-urlencoded":
                text = (await whole(request, most)).decode()
                fields = collected(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS), model)
            case "multipart/form-data":
                fields, image = await multipart(request, model, most)
            case _:
                raise ProblemError(
                    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                    "unsupported-type",
                    f"a body of type {kind or 'unknown'!r}; expected multipart/form-data, "
                    "application/x-www-form-urlencoded or application/json",
                )
        return model.model_validate(fields), image
    except ValidationError as error:
        raise invalid(error.errors()) from error
    except (ValueError, RecursionError, MultiPartException) as error:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST, "malformed", f"the body is not the {kind} that it says it is"
        ) from error


async def whole(request: Request, most: int) -> bytes:
    return b"".join([chunk async for chunk in bounded(request, most)])


async def multipart(request: Request, model: type[Body], most: int) -> tuple[dict[str, Any], bytes | None]:
    """Return a form's fields, and the bytes of the file in its field `image`."""
    form = await MemoryParser(request.headers, bounded(request, most), max_files=1, max_fields=MAX_FIELDS).parse()
    image: bytes | None = None
    fields: list[tuple[str, str]] = []
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            fields.append((name, value))
        elif name == "image":
            image = await value.read()
        else:
            fields.append((name, "a file"))  # rejected later as an unknown field
    await form.close()
    return collected(fields, model), image


def collected(fields: list[tuple[str, str]], model: type[Body]) -> dict[str, Any]:
    """Return a form's fields by name. `candidates` may be repeated; other empty fields are dropped."""
    found: dict[str, Any] = {}
    for name, value in fields:
        if name == "candidates" and "candidates" in model.model_fields:
            found.setdefault(name, []).append(value)
        elif value:
            found[name] = value
    return found
