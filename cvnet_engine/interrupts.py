"""Handlers of Ctrl-C: one line and exit code 130 at any moment. A running command cleans up first."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

CODE = 128 + signal.SIGINT
STANDARD_ERROR = 2


def arm() -> None:
    """Make Ctrl-C end the process, unless it is ignored, as in a background job."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """The first Ctrl-C raises KeyboardInterrupt, whose text is added to the message; a second one ends the process."""

    def unwind(*_: object) -> None:
        signal.signal(signal.SIGINT, end)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, unwind)
    try:
        yield
    except KeyboardInterrupt as stopped:
        say(*stopped.args)
        raise SystemExit(CODE) from None
    finally:
        signal.signal(signal.SIGINT, before)


def end(*_: object) -> None:
    say()
    os._exit(CODE)


def say(*more: str) -> None:
    with contextlib.suppress(OSError):  # standard error is closed
        os.write(STANDARD_ERROR, ("; ".join(("interrupted", *more)) + "\n").encode())
