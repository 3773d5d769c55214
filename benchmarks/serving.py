"""A `cvnet-engine serve` process on a free port of this machine, and requests to it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path

from cvnet_engine.benchmarks.latency.memory import status_bytes
from cvnet_engine.engine.contract import Closing
from cvnet_engine.engine.errors import BackendError

STOP_S = 30
TIMEOUT_S = 600  # much longer than the deadline of a search


@dataclass(frozen=True)
class Request:
    """An HTTP request.

    Attributes:
        kind: name in reports.
        body: makes the request a POST.
        whole: checks that the content of an answer is complete.
    """

    kind: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    whole: Callable[[bytes], bool] = bool


class Server(Closing):
    """A running server, stopped when closed."""

    def __init__(self, bundle: Path, gallery: Path, threads: int | None = None) -> None:
        """
        Raises:
            BackendError: it did not start; with the last line of its log.
        """
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the server)
        limited = ["--threads", str(threads)] if threads else []
        options = ["--bundle", str(bundle), "--gallery", str(gallery), "--port", "0", *limited]
        self._process = subprocess.Popen(
            program("serve", *options), stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        try:
            self.port = self._announced_port()
        except BaseException:
            self.close()
            raise

    def _announced_port(self) -> int:
        assert self._process.stdout
        for line in self._process.stdout:
            if found := re.search(r"http://[^ ]*:(\d+)", line):
                return int(found[1])
        raise BackendError(f"'cvnet-engine serve' did not start: {(self.log().splitlines() or ['no output'])[-1]}")

    def log(self) -> str:
        """Everything that it wrote to standard error."""
        self._log.seek(0)
        return self._log.read()

    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        return status_bytes("VmRSS", self._process.pid)

    def metric(self, name: str) -> float:
        """A Prometheus metric; 0 before its first sample."""
        text = fetch(self.port, Request("metrics", "/metrics")).decode()
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._log.close()


def program(*arguments: str) -> Sequence[str]:
    """The command line of `cvnet-engine`, run by this interpreter."""
    return [sys.executable, "-u", "-m", "cvnet_engine", *arguments]


def fetch(port: int, request: Request) -> bytes:
    """Send a request and return the content of its answer.

    Raises:
        BackendError: no answer, or a status other than 200.
    """
    try:
        with contextlib.closing(connection(port)) as line:
            response = ask(line, request)
            content = response.read()
    except (OSError, HTTPException) as error:
        raise BackendError(f"{request.path}: the server does not answer ({error})") from error
    if response.status != HTTPStatus.OK:
        raise BackendError(f"{request.path}: expected 200 from the server, got {response.status}: {content.decode()}")
    return content


def connection(port: int) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)


def ask(line: HTTPConnection, request: Request) -> HTTPResponse:
    """Send a request; returns when the head of the answer has arrived."""
    line.request("POST" if request.body else "GET", request.path, request.body or None, dict(request.headers))
    return line.getresponse()
