"""Several engines of one graph as one that serves as many threads at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from queue import SimpleQueue

from cvnet_engine.engine.contract import Array, Closing, Engine


class Streams(Closing):
    """An `Engine` that runs on whichever of its engines is idle; with all of them at work, a thread waits for one."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        """
        Args:
            engines: of one graph; they are closed with this one.
        """
        self.inputs, self.outputs = engines[0].inputs, engines[0].outputs
        self._engines = tuple(engines)
        self._idle: SimpleQueue[Engine] = SimpleQueue()
        for engine in engines:
            self._idle.put(engine)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        engine = self._idle.get()
        try:
            return engine.run(feeds)
        finally:
            self._idle.put(engine)

    def close(self) -> None:
        with contextlib.ExitStack() as opened:  # all of them, whatever happens to one
            for engine in self._engines:
                opened.callback(engine.close)
