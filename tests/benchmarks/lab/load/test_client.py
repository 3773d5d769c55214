"""Clients: answers, refusals, and connections that break."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.lab.load.client import LOST, send
from benchmarks.lab.load.phases import by_crowd
from cvnet_engine.benchmarks.serving import Request, fetch
from cvnet_engine.engine.errors import BackendError


class Handler(BaseHTTPRequestHandler):
    refusals = 1  # before the first answer of /busy

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"half")
            return
        refused = self.path == "/busy" and self.server.refused < self.refusals
        self.server.refused += refused
        self.send_response(503 if refused or self.path == "/wordless" else 200)
        if refused:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(b"content")


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.refused = 0
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_whole_answers_and_others(port):
    assert send(port, Request("x", "/")).status == 200
    assert send(port, Request("x", "/", whole=lambda content: content == b"content")).status == 200
    assert send(port, Request("x", "/", whole=lambda content: content == b"more")).status == LOST
    assert send(port, Request("x", "/cut")).status == LOST
    wordless = send(port, Request("x", "/wordless"))
    assert (wordless.status, wordless.refused) == (503, False)
    assert fetch(port, Request("x", "/")) == b"content"
    with pytest.raises(BackendError, match="expected 200 from the server, got 503"):
        fetch(port, Request("x", "/wordless"))


def test_a_refused_client_comes_again_until_it_is_answered(port):
    answers = by_crowd(port, [[Request("x", "/busy"), Request("x", "/")]])
    assert [(answer.status, answer.refused) for answer in answers] == [(503, True), (200, False), (200, False)]


def test_no_server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        gone = server.server_port
    assert send(gone, Request("x", "/")).status == LOST
    with pytest.raises(BackendError, match="does not answer"):
        fetch(gone, Request("x", "/"))
