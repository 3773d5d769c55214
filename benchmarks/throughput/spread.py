"""How work is spread over a machine."""

from __future__ import annotations

from dataclasses import dataclass

BATCH = 4  # images described at once, where more than one is
MOST = 4  # streams or processes, each of which has memory of its own


@dataclass(frozen=True)
class Spread:
    """How work is spread.

    Attributes:
        batch: images of one size that an engine describes at once.
        streams: engines of each graph in a process, at work at the same time.
        processes: with as many each.
        threads: of the CPU, of each engine.
    """

    batch: int
    streams: int
    processes: int
    threads: int

    @property
    def workers(self) -> int:
        """Engines at work at the same time."""
        return self.streams * self.processes

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.streams} streams, {self.processes} processes, {self.threads} threads each"


def spreads(threads: int) -> list[Spread]:
    """One engine that has all threads, with one image and with several at once; then streams, processes, and both."""
    each = [(1, 1), (MOST, 1), (1, MOST), (2, 2)] if threads >= MOST else [(1, 1), (threads, 1), (1, threads)]
    single = [Spread(1, streams, processes, threads // (streams * processes)) for streams, processes in each]
    return list(dict.fromkeys([single[0], Spread(BATCH, 1, 1, threads), *single[1:]]))
