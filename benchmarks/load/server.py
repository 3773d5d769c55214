"""`cvnet-engine serve` as a process of its own, on a free port of this machine."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cvnet_engine.benchmarks.latency.memory import status_bytes
from cvnet_engine.benchmarks.load.client import Request, fetch
from cvnet_engine.engine.contract import Closing
from cvnet_engine.engine.errors import BackendError

STOP_S = 30


class Server(Closing):
    """A server that answers; it is stopped when closed."""

    def __init__(self, bundle: Path, gallery: Path, threads: int | None = None) -> None:
        """
        Raises:
            BackendError: it did not start, in its own last words.
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
        raise BackendError(f"'cvnet-engine serve' did not start: {(self.log().splitlines() or ['no word'])[-1]}")

    def log(self) -> str:
        """What it wrote to its standard error."""
        self._log.seek(0)
        return self._log.read()

    def resident_bytes(self) -> int:
        """Memory that it has in use."""
        return status_bytes("VmRSS", self._process.pid)

    def metric(self, name: str) -> float:
        """One of its Prometheus figures; 0 where it has not come up yet."""
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
