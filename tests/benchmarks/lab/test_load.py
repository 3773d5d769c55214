"""The load test's client, and the requirements that its report checks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.lab.load import LoadTest, Phase, Sample, by_crowd
from benchmarks.lab.traffic import LOST, Answer, send
from cvnet_engine.benchmarks.serving import Request, fetch
from cvnet_engine.engine.errors import BackendError

GOOD = [Answer("search", 200, seconds) for seconds in (0.1, 0.2, 0.3)]
REFUSED = Answer("search", 503, 0.0, 5.0)
MIB = 2**20
RUN = LoadTest(
    constant=Phase.of("1 per second", 10, GOOD),
    overload=Phase.of("64 clients", 10, [*GOOD, REFUSED]),
    memory=[Sample(2.0 * n, (300 if n < 2 else 500 + n // 10) * MIB, 58 + n) for n in range(20)],
    index_runs=3,
    exceptions=0,
)


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


def test_answers_are_complete_or_lost(port):
    assert send(port, Request("x", "/")).status == 200
    assert send(port, Request("x", "/", whole=lambda content: content == b"content")).status == 200
    assert send(port, Request("x", "/", whole=lambda content: content == b"more")).status == LOST
    assert send(port, Request("x", "/cut")).status == LOST
    wordless = send(port, Request("x", "/wordless"))
    assert (wordless.status, wordless.refused) == (503, False)
    assert fetch(port, Request("x", "/")) == b"content"
    with pytest.raises(BackendError, match="expected 200 from the server, got 503"):
        fetch(port, Request("x", "/wordless"))


def test_refused_client_retries_until_answered(port):
    answers = by_crowd(port, [[Request("x", "/busy"), Request("x", "/")]])
    assert [(answer.status, answer.refused) for answer in answers] == [(503, True), (200, False), (200, False)]


def test_request_without_a_server_is_lost():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        gone = server.server_port
    assert send(gone, Request("x", "/")).status == LOST
    with pytest.raises(BackendError, match="does not answer"):
        fetch(gone, Request("x", "/"))


def test_good_run_meets_all_requirements():
    assert all(RUN.must_hold.values())
    written = RUN.markdown()
    assert "| 64 clients | 3 | 0.3 | 1 | 0 | 0 | 0 |" in written
    assert "| 64 clients | search | 200 | 298 |" in written
    assert "**no**" not in written
    assert RUN.to_json()["must_hold"] == RUN.must_hold


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"constant": Phase.of("", 1, [*GOOD, Answer("search", LOST, 1.0)])}, "no request was lost"),
        ({"constant": Phase.of("", 1, [*GOOD, Answer("search", 500, 1.0)])}, "no 500"),
        ({"overload": Phase.of("", 1, [REFUSED, Answer("search", 503, 1.0)])}, "no 500"),
        ({"constant": Phase.of("", 1, [*GOOD, REFUSED])}, "within capacity"),
        ({"overload": Phase.of("", 1, GOOD)}, "beyond capacity"),
        ({"exceptions": 1}, "no exception"),
        ({"memory": [Sample(n, (500 + 2 * n) * MIB, 58 + n) for n in range(20)]}, "memory"),
        ({"memory": [Sample(n, 500 * MIB, 58) for n in range(20)]}, "opened the gallery again"),
    ],
)
def test_broken_requirement_is_reported(changes, claim):
    run = replace(RUN, **changes)
    (broken,) = (claim for claim, held in run.must_hold.items() if not held)
    assert claim in broken
    assert f"- **no**: {broken}" in run.markdown()
