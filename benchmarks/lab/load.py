"""Load test of `cvnet-engine serve` on this machine: `python -m benchmarks.lab.load --bundle DIR --out FILE`.

A server runs over a gallery of generated scenes, in two phases: a constant rate of mixed requests while `index`
repeatedly adds images; then twice as many clients as the server accepts. The exit status is 1 if a requirement was not
met.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from http import HTTPStatus
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

import scenes
from benchmarks.lab import harness
from benchmarks.lab.harness import NoteOption, OutOption
from benchmarks.lab.traffic import LOST, Answer, Traffic, send
from cvnet_engine.benchmarks.latency.stages import photo
from cvnet_engine.benchmarks.serving import Request, Server, program
from cvnet_engine.benchmarks.tables import Table, markdown, ms
from cvnet_engine.engine.bundle import Bundle

SENDERS = 24  # concurrent requests at most in the phase of constant rate
CROWD, EACH = 64, 8  # clients, twice the number of searches that a server accepts; and requests of each
MEMORY_SAMPLE_S = 2.0
ADDED = 10  # images per run of `index`
ADDED_SIZE = (96, 128)
FLAT = 0.05  # largest relative growth of memory that counts as flat
WINDOWS = 10  # time windows for memory; the first is the warm-up


@dataclass(frozen=True)
class Phase:
    """Outcomes of all requests of a phase.

    Attributes:
        answered: requests answered with 200.
        refused: requests refused with 503 and Retry-After.
        late: requests that passed their deadline (504).
        lost: requests without a complete answer.
        statuses: number of other responses, by HTTP status.
        waits_ms: median and 99th percentile of the waiting times of answered requests, by kind.
    """

    name: str
    seconds: float
    answered: int
    refused: int
    late: int
    lost: int
    statuses: dict[int, int]
    waits_ms: dict[str, tuple[float, float]]

    @classmethod
    def of(cls, name: str, seconds: float, answers: Sequence[Answer]) -> Phase:
        by_kind: dict[str, list[float]] = {}
        for answer in answers:
            if answer.status == HTTPStatus.OK:
                by_kind.setdefault(answer.kind, []).append(answer.seconds)
        refused = sum(answer.refused for answer in answers)
        others = Counter(a.status for a in answers if a.status != HTTPStatus.OK and not a.refused)
        late, lost = others.pop(HTTPStatus.GATEWAY_TIMEOUT, 0), others.pop(LOST, 0)
        answered = sum(map(len, by_kind.values()))
        waits_ms = {kind: percentiles_ms(found) for kind, found in by_kind.items()}
        return cls(name, seconds, answered, refused, late, lost, dict(others), waits_ms)


def percentiles_ms(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile, in milliseconds."""
    p50, p99 = np.percentile(seconds, (50, 99))
    return 1000 * float(p50), 1000 * float(p99)


@dataclass(frozen=True)
class Sample:
    """Resident memory of the server and the images it served, in seconds since the first sample."""

    at_s: float
    resident_bytes: int
    images: int


@dataclass(frozen=True)
class LoadTest:
    """Results of a load test.

    Attributes:
        constant, overload: the two phases.
        memory: samples from the phase of constant rate, in which `index` ran `index_runs` times.
        exceptions: tracebacks in the server's log.
    """

    constant: Phase
    overload: Phase
    memory: list[Sample]
    index_runs: int
    exceptions: int

    @property
    def phases(self) -> tuple[Phase, Phase]:
        return self.constant, self.overload

    @property
    def memory_spread(self) -> float:
        """Relative difference between the largest and smallest median of memory over `WINDOWS` parts of the phase.

        The first part is left out.
        """
        resident = [sample.resident_bytes for sample in self.memory]
        medians = [float(np.median(part)) for part in np.array_split(resident, WINDOWS) if len(part)]
        settled = medians[1:] or medians
        return max(settled) / min(settled) - 1

    @property
    def must_hold(self) -> dict[str, bool]:
        """Requirements on every run, on any machine, and whether this run meets them."""
        return {
            "no request was lost": all(phase.lost == 0 for phase in self.phases),
            "no 500: answers, refusals with Retry-After and deadlines, no other error": not any(
                phase.statuses for phase in self.phases
            ),
            "no exception in the server's log": self.exceptions == 0,
            "within capacity nothing was refused": self.constant.refused == 0,
            "beyond capacity some requests were refused, and later answered": self.overload.refused > 0,
            "the server opened the gallery again as it grew": self.index_runs == 0
            or self.memory[-1].images > self.memory[0].images,
            f"memory stayed flat within {FLAT:.0%}": self.memory_spread <= FLAT,
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"memory_spread": self.memory_spread, "must_hold": self.must_hold}

    def markdown(self) -> str:
        return "\n".join(
            [
                *(f"- {'yes' if held else '**no**'}: {claim}" for claim, held in self.must_hold.items()),
                "",
                markdown(outcome_table(self.phases), text_columns=1),
                f"In {self.memory[-1].at_s / 60:.1f} minutes at constant rate, `index` ran {self.index_runs} times and "
                f"resident memory varied by {self.memory_spread:.1%}; at the end it was "
                f"{self.memory[-1].resident_bytes / 2**20:.0f} MiB.\n",
                markdown(wait_table(self.phases)),
            ]
        )


def outcome_table(phases: Sequence[Phase]) -> Table:
    columns = ("phase", "answered", "per second", "refused with Retry-After", "deadline passed", "other", "lost")
    rows = tuple(
        (
            p.name,
            str(p.answered),
            f"{p.answered / p.seconds:.1f}",
            *map(str, (p.refused, p.late, sum(p.statuses.values()), p.lost)),
        )
        for p in phases
    )
    return Table("Outcomes of all requests", columns, rows)


def wait_table(phases: Sequence[Phase]) -> Table:
    """Build a table with one row per phase and kind of request."""
    rows = tuple((p.name, kind, ms(p50), ms(p99)) for p in phases for kind, (p50, p99) in p.waits_ms.items())
    return Table("Waiting times of answered requests, ms", ("phase", "request", "p50", "p99"), rows)


def main(
    bundle: Annotated[Path, typer.Option(help="As for 'serve'.")],
    out: OutOption,
    minutes: Annotated[float, typer.Option(help="Length of the phase of constant rate.")] = 30,
    rate: Annotated[float, typer.Option(help="Requests per second in that phase.")] = 2,
    index_every: Annotated[float, typer.Option(help="Seconds between runs of 'index' in that phase.")] = 30,
    data: Annotated[str, typer.Option(help=f"Generated scenes: {', '.join(scenes.SETS)}.")] = "demo",
    threads: Annotated[int | None, typer.Option(help="As for 'serve'.")] = None,
    note: NoteOption = "",
) -> None:
    """Load a server and report latency, refusals and lost requests."""
    with tempfile.TemporaryDirectory() as scratch:
        harness.log(f"indexing the scenes of {data!r}")
        photos, gallery = scenes.write(scenes.SETS[data], Path(scratch)) / "jpg", Path(scratch) / "gallery"
        subprocess.run(program("index", str(photos), "--bundle", str(bundle), "--gallery", str(gallery)), check=True)
        writer = Writer(Path(scratch) / "added", bundle, gallery)
        with Server(bundle, gallery, threads) as server:
            found = run(server, writer, minutes, rate, index_every)
    model = Bundle(bundle).manifest.model
    report = {**harness.head("benchmarks.lab.load"), "model": model, "note": note, **found.to_json()}
    sys.stdout.write(
        harness.write(out, f"Server under load, {model}", report, *([f"{note}\n"] if note else []), found.markdown())
    )
    if not all(found.must_hold.values()):
        raise typer.Exit(1)


def run(server: Server, writer: Writer, minutes: float, rate: float, index_every_s: float) -> LoadTest:
    """Run the phases in order."""
    traffic, memory = Traffic(server.port), Memory(server)
    with Repeatedly(writer.add, index_every_s), Repeatedly(memory.look, MEMORY_SAMPLE_S):
        requests = traffic.mixed()
        constant = phase(f"{rate:g} per second", lambda: at_rate(server.port, requests, rate, 60 * minutes))
    searches = [[traffic.by_id(EACH * client + number) for number in range(EACH)] for client in range(CROWD)]
    overload = phase(f"{CROWD} clients", lambda: by_crowd(server.port, searches))
    return LoadTest(constant, overload, memory.samples, writer.runs, server.log().count("Traceback"))


def phase(name: str, work: Callable[[], list[Answer]]) -> Phase:
    harness.log(name)
    answers, seconds = harness.timed(work)
    return Phase.of(name, seconds, answers)


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

    def patiently(requests: list[Request]) -> list[Answer]:
        answers = []
        for request in requests:
            answers.append(send(port, request))
            while answers[-1].refused:
                time.sleep(answers[-1].retry_after_s or 0)
                answers.append(send(port, request))
        return answers

    with ThreadPoolExecutor(len(clients)) as crowd:
        return list(chain.from_iterable(crowd.map(patiently, clients)))


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
        options = ["--bundle", str(bundle), "--gallery", str(gallery), "--threads", "1"]
        self._command = program("index", str(folder), *options)
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


if __name__ == "__main__":
    with harness.errors_as_one_line():
        typer.run(main)
