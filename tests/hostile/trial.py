"""Trials: an input is read in a separate process with limits on time and memory; the outcome is classified."""

from __future__ import annotations

import faulthandler
import hashlib
import os
import pickle
import re
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cvnet_engine.engine.errors import CvnetError

ACCEPTED, REFUSED = "accepted", "refused with a reason"
FAILURES = TRACEBACK, CRASH, HANG, SILENT = ("tracebacks", "crashes", "hangs", "silent")
OUTCOMES = (REFUSED, ACCEPTED, *FAILURES)
SECONDS = 60  # before an input counts as a hang; the machine may be busy
MEMORY_BYTES = 3 << 30  # for an input, beyond the use at the start: the largest permitted photo needs 1.1 GB
REMEDY = re.compile(r"[;:,] ?\S")  # separates what happened from what was expected or what to do


class Refusal:
    """Expectation: the input is refused."""


class Anything:
    """Expectation: any well-formed result, because the damage cannot be detected."""


@dataclass(frozen=True)
class Case:
    """An input.

    Attributes:
        kind: the row of the table that counts it.
        what: description of the input.
        read: reads the input in an empty folder, and returns the result as plain values.
        expected: the result if the input is accepted.
    """

    kind: str
    what: str
    read: Callable[[Path], object]
    expected: object | type[Refusal] | type[Anything]


@dataclass(frozen=True)
class Verdict:
    kind: str
    what: str
    outcome: str
    detail: str
    seconds: float


def judge(case: Case, limit_s: float = SECONDS) -> Verdict:
    """Run a case in a child process."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        outcome, detail = forked(lambda: attempt(case, Path(folder)), limit_s)
    return Verdict(case.kind, case.what, outcome, detail, time.monotonic() - started)


def attempt(case: Case, folder: Path) -> tuple[str, str]:
    """Outcome and reason, determined within the child process."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()  # a crash is recognised by the exit status
    try:
        found = case.read(folder)
    except CvnetError as error:
        return refusal(str(error))
    except MemoryError:
        return CRASH, "out of memory"
    except Exception:
        return TRACEBACK, traceback.format_exc()
    if case.expected is Anything or found == case.expected:
        return ACCEPTED, ""
    return SILENT, "accepted" if case.expected is Refusal else f"gave {found!r:.300}; expected {case.expected!r:.300}"


def refusal(message: str) -> tuple[str, str]:
    """Outcome of an error: its message must be one line with a reason and a remedy."""
    if "\n" in message or not REMEDY.search(message):
        return TRACEBACK, f"no reason on one line: {message!r}"
    return REFUSED, message


def forked(work: Callable[[], tuple[str, str]], limit_s: float) -> tuple[str, str]:
    """The result of `work` in a child process, or how the process ended."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        os.close(reader)
        os.setpgid(0, 0)
        try:
            data = pickle.dumps(work())
            with os.fdopen(writer, "wb") as stream:
                stream.write(data)
        finally:
            os._exit(0)
    os.close(writer)
    data, deadline = b"", time.monotonic() + limit_s
    with os.fdopen(reader, "rb", buffering=0) as stream:
        while select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
            part = stream.read(1 << 16)
            data += part
            if not part:
                break
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return HANG, f"longer than {limit_s} s"
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return CRASH, signal.Signals(os.WTERMSIG(status)).name
    if not data:
        return CRASH, "ended without a result"
    outcome: tuple[str, str] = pickle.loads(data)
    return outcome


def digest(*values: object) -> str:
    """A short digest of arrays, bytes and plain values."""
    sha = hashlib.sha256()
    for value in values:
        sha.update(value if isinstance(value, bytes) else repr(value).encode())
    return sha.hexdigest()[:16]
