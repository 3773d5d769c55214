"""Load patterns: a constant rate, concurrent clients that retry, and clients that disconnect."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2

from benchmarks.lab.load.client import Answer, hang_up, send
from cvnet_engine.benchmarks.latency.stages import photo
from cvnet_engine.benchmarks.serving import Request, Server, program

SENDERS = 24  # concurrent requests at most in the phase of constant rate
SAMPLE_S = 2.0  # interval between memory samples
IDLE_WAIT_S = 60.0
ADDED = 10  # images per run of `index`
ADDED_SIZE = (96, 128)


@dataclass(frozen=True)
class Sample:
    """Resident memory of the server and the images it served, in seconds since the first sample."""

    at_s: float
    resident_bytes: int
    images: int


@dataclass(frozen=True)
class Cancelled:
    """Effect of clients that disconnected: pairs requested, pairs scored, seconds until the engines were idle."""

    clients: int
    pairs_asked: int
    pairs_scored: int
    idle_after_s: float


def at_rate(port: int, requests: Iterator[Request], per_s: float, seconds: float) -> list[Answer]:
    """Send requests at a constant rate, regardless of how long earlier ones take; returns their outcomes."""
    first = time.perf_counter()

    def when_due(due: float, request: Request) -> Answer:
        time.sleep(max(0.0, due - time.perf_counter()))
        return send(port, request, due)

    with ThreadPoolExecutor(SENDERS) as senders:
        due = (first + number / per_s for number in range(round(per_s * seconds)))
        return list(senders.map(when_due, due, requests))


def by_crowd(port: int, clients: list[list[Request]]) -> list[Answer]:
    """Run clients concurrently, each sending its requests in turn and retrying refused ones after Retry-After."""

    def patiently(requests: list[Request]) -> Iterator[Answer]:
        for request in requests:
            yield (answer := send(port, request))
            while answer.refused:
                assert answer.retry_after_s is not None
                time.sleep(answer.retry_after_s)
                yield (answer := send(port, request))

    with ThreadPoolExecutor(len(clients)) as crowd:
        return [
            answer for answers in crowd.map(lambda requests: list(patiently(requests)), clients) for answer in answers
        ]


def by_quitters(server: Server, requests: list[Request], pairs_each: int) -> Cancelled:
    """Request a stream from all clients at once; each disconnects at its first pair scores."""
    before = server.metric("cvnet_pairs_total")
    with ThreadPoolExecutor(len(requests)) as crowd:
        list(crowd.map(lambda request: hang_up(server.port, request, b"event: scores"), requests))
    gone = time.perf_counter()
    while server.metric("cvnet_queue") and time.perf_counter() < gone + IDLE_WAIT_S:
        time.sleep(0.05)
    idle_after_s = time.perf_counter() - gone
    scored = server.metric("cvnet_pairs_total") - before
    return Cancelled(len(requests), pairs_each * len(requests), int(scored), idle_after_s)


class Repeatedly:
    """A context manager that repeats a call at an interval, in a thread, while the block runs."""

    def __init__(self, work: Callable[[], object], every_s: float) -> None:
        self._work, self._every_s = work, every_s
        self._over = threading.Event()
        self._executor = ThreadPoolExecutor(1)

    def _run(self) -> None:
        while not self._over.is_set():
            self._work()
            self._over.wait(self._every_s)

    def __enter__(self) -> None:
        self._running = self._executor.submit(self._run)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._executor.shutdown()
        self._running.result()


class Writer:
    """A writer that adds new images to the gallery, with one `index` process per call."""

    def __init__(self, folder: Path, bundle: Path, gallery: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._command = program(
            "index", str(folder), "--bundle", str(bundle), "--gallery", str(gallery), "--threads", "1"
        )
        self.runs = 0

    def add(self) -> None:
        for number in range(self.runs * ADDED, (self.runs + 1) * ADDED):
            cv2.imwrite(str(self._folder / f"added {number:05d}.jpg"), photo(*ADDED_SIZE, number))
        subprocess.run(self._command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.runs += 1


class Memory:
    """Samples of a server's resident memory."""

    def __init__(self, server: Server) -> None:
        self._server, self._first = server, time.perf_counter()
        self.samples: list[Sample] = []

    def look(self) -> None:
        images = int(self._server.metric("cvnet_gallery_images"))
        self.samples.append(Sample(time.perf_counter() - self._first, self._server.resident_bytes(), images))
