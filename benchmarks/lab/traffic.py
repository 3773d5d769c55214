"""Requests of every kind that the search page and API clients send, and a client that records their outcomes."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from itertools import count
from pathlib import Path
from typing import Any

from cvnet_engine.benchmarks.serving import Request, ask, connection, fetch
from cvnet_engine.engine.geometry import DESCRIPTOR_DIM

TOP_K = 10
SHORTLIST = 20  # pairs of a search
STREAM = {"Accept": "text/event-stream"}
JPEG = b"\xff\xd8"
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


class Traffic:
    """A source of requests about the images of a gallery."""

    def __init__(self, port: int) -> None:
        listed = json.loads(fetch(port, Request("images", "/v1/images?limit=1000")))["images"]
        self._ids: list[str] = [image["id"] for image in listed]
        self._files = [Path(image["path"]) for image in listed]
        self._makers: tuple[Callable[[int], Request], ...] = (
            self.by_id,
            self.thumbnail,
            self.streamed,
            self.similar,
            self.uploaded,
            self.thumbnail,
            self.page,
            self.by_id,
            self.thumbnail,
            self.streamed,
            self.described,
            self.facts,
        )

    def mixed(self) -> Iterator[Request]:
        """Yield all kinds of requests in turn, each about another image."""
        return (self._makers[number % len(self._makers)](number) for number in count())

    def by_id(self, number: int) -> Request:
        return search(f"search by id, {SHORTLIST} pairs", self._id(number), SHORTLIST)

    def similar(self, number: int) -> Request:
        return search("search by id, no pairs", self._id(number), 0)

    def streamed(self, number: int) -> Request:
        return search(f"search by id, {SHORTLIST} pairs, streamed", self._id(number), SHORTLIST, STREAM)

    def uploaded(self, number: int) -> Request:
        fields = {"top_k": TOP_K, "rerank": SHORTLIST}
        return upload(f"search by upload, {SHORTLIST} pairs", "/v1/search", self._file(number), fields, is_ranking)

    def described(self, number: int) -> Request:
        return upload("descriptor of an upload", "/v1/descriptors", self._file(number), {}, is_descriptor)

    def thumbnail(self, number: int) -> Request:
        path = f"/v1/images/{self._id(number)}/thumbnail"
        return Request("thumbnail", path, whole=lambda content: content.startswith(JPEG))

    def page(self, number: int) -> Request:
        return Request("list of images", f"/v1/images?limit=60&offset={number % len(self._ids)}")

    def facts(self, _: int) -> Request:
        return Request("gallery", "/v1/gallery")

    def _id(self, number: int) -> str:
        return self._ids[number % len(self._ids)]

    def _file(self, number: int) -> Path:
        return self._files[number % len(self._files)]


def search(kind: str, id_: str, shortlist: int, accept: dict[str, str] | None = None) -> Request:
    body = json.dumps({"id": id_, "top_k": TOP_K, "rerank": shortlist}).encode()
    whole = ends_in_a_ranking if accept else is_ranking
    return Request(kind, "/v1/search", body, {"Content-Type": "application/json", **(accept or {})}, whole)


def upload(kind: str, path: str, file: Path, fields: dict[str, Any], whole: Callable[[bytes], bool]) -> Request:
    """Return a request with a multipart form that has a file in its field `image`."""
    boundary = uuid.uuid4().hex
    head = 'Content-Disposition: form-data; name="{}"'
    parts = [(head.format(name), str(value).encode()) for name, value in fields.items()]
    parts.append((head.format("image") + '; filename="query"', file.read_bytes()))
    framed = (f"--{boundary}\r\n{head}\r\n\r\n".encode() + value + b"\r\n" for head, value in parts)
    body = b"".join(framed) + f"--{boundary}--\r\n".encode()
    return Request(kind, path, body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}, whole)


def is_ranking(content: bytes) -> bool:
    return len(json.loads(content)["results"]) == TOP_K


def ends_in_a_ranking(content: bytes) -> bool:
    event, _, data = content.decode().strip().rpartition("event: ")[2].partition("\ndata: ")
    return event == "result" and is_ranking(data.encode())


def is_descriptor(content: bytes) -> bool:
    return len(json.loads(content)["descriptor"]) == DESCRIPTOR_DIM
