"""A server on a port of its own, in a thread, whose engines wait where a test wants to look.

`python -m tests.cvnet_engine.server.running GALLERY` is one that scores no pair, to be killed; it prints its port.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import uvicorn

from cvnet_engine.commands.serve import listen
from cvnet_engine.server.access import Access
from cvnet_engine.server.app import create_app
from cvnet_engine.server.scheduler import Scheduler
from cvnet_engine.server.served_gallery import ServedGallery
from cvnet_engine.server.service import ModelInfo
from tests.cvnet_engine.server.conftest import ScoringEngines
from tests.galleries import INFO


class Gated(ScoringEngines):
    """Scores a batch when the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.reached, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.gate.set()
        self.shapes: list[tuple[int, ...]] = []  # of the images that were looked at
        self.batches = 0

    def extract(self, image):
        self.shapes.append(image.shape)
        return super().extract(image)

    def score_batches(self, query, collection, rows, *bound):
        try:
            for batch in super().score_batches(query, collection, rows, *bound):
                self.reached.set()
                assert self.gate.wait(60)
                self.batches += 1
                yield batch
        finally:
            self.closed.set()


class Watched(Scheduler):
    """Tells when a job is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled = threading.Event()

    def submit(self, steps, deliver):
        job = super().submit(steps, deliver)
        cancel = job.cancel
        job.cancel = lambda: (cancel(), self.cancelled.set())
        return job


class Running:
    def __init__(self, gallery: Path, token: str | None = None, port: int = 0) -> None:
        self.engines, self.scheduler = Gated(), Watched()
        served = ServedGallery(gallery, INFO, self.engines)
        about = ModelInfo("fake model", INFO.features_id, "The model is untrained.")
        app = create_app(self.engines, served, about, Access("127.0.0.1", token), self.scheduler)
        self.listener = listen("127.0.0.1", port)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=30))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()

    def stop(self) -> None:
        self.engines.gate.set()
        self.server.should_exit = True
        self.thread.join(60)
        self.listener.close()


if __name__ == "__main__":
    running = Running(Path(sys.argv[1]))
    running.engines.gate.clear()
    sys.stdout.write(f"{running.port}\n")
    sys.stdout.flush()
    running.thread.join()
