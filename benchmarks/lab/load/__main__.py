"""Load test of `cvnet-engine serve` on this machine: `python -m benchmarks.lab.load --bundle DIR --out FILE`.

A server runs over a gallery of generated scenes, in four phases: a constant rate of mixed requests while `index`
repeatedly adds images; a few clients at full speed; twice as many clients as the server accepts; clients that
disconnect. The exit status is 1 if a requirement was not met.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Annotated

import typer

import scenes
from benchmarks.lab import commands
from benchmarks.lab.commands import OutOption
from benchmarks.lab.load.client import Answer
from benchmarks.lab.load.phases import SAMPLE_S, Memory, Repeatedly, Writer, at_rate, by_crowd, by_quitters
from benchmarks.lab.load.report import LoadReport, Phase
from benchmarks.lab.load.traffic import LONG_SHORTLIST, SHORTLIST, Traffic
from cvnet_engine.benchmarks.serving import Request, Server, program
from cvnet_engine.engine.bundle import Bundle

BUSY = 8
CROWD = 64  # twice the number of searches that a server accepts
QUITTERS = 16
QUEUE_SAMPLE_S = 0.2
EACH = 8  # requests per client of a crowd


def main(
    bundle: Annotated[Path, typer.Option(help="As for 'serve'.")],
    out: OutOption,
    minutes: Annotated[float, typer.Option(help="Of constant load.")] = 30,
    rate: Annotated[float, typer.Option(help="Requests a second, while it is constant.")] = 2,
    index_every: Annotated[float, typer.Option(help="Seconds between runs of 'index' meanwhile.")] = 30,
    data: Annotated[str, typer.Option(help=f"Generated scenes: {', '.join(scenes.SETS)}.")] = "demo",
    threads: Annotated[int | None, typer.Option(help="As for 'serve'.")] = None,
    note: Annotated[str, typer.Option(help="What else the machine was doing, for the report.")] = "",
) -> None:
    """Load a server and report latency, refusals and lost requests."""
    with tempfile.TemporaryDirectory() as scratch:
        gallery = filled(Path(scratch), data, bundle)
        writer = Writer(Path(scratch) / "added", bundle, gallery)
        with Server(bundle, gallery, threads) as server:
            report = pressed(server, writer, minutes, rate, index_every, Bundle(bundle).manifest.model, note)
    commands.write(out, report.document(), report.markdown())
    sys.stdout.write(report.markdown())
    if not all(report.must_hold.values()):
        raise typer.Exit(1)


def filled(folder: Path, data: str, bundle: Path) -> Path:
    """Index generated scenes into a gallery."""
    say(f"indexing the scenes of {data!r}")
    photos = scenes.write(scenes.SETS[data], folder) / "jpg"
    gallery = folder / "gallery"
    subprocess.run(program("index", str(photos), "--bundle", str(bundle), "--gallery", str(gallery)), check=True)
    return gallery


def pressed(
    server: Server, writer: Writer, minutes: float, rate: float, index_every_s: float, model: str, note: str
) -> LoadReport:
    """Run the four phases in order."""
    traffic, memory, queue = Traffic(server.port), Memory(server), [0.0]
    mixed = traffic.mixed()

    def shared_out(clients: int, requests: Iterator[Request]) -> list[list[Request]]:
        return [list(islice(requests, EACH)) for _ in range(clients)]

    with Repeatedly(writer.add, index_every_s), Repeatedly(memory.look, SAMPLE_S):
        constant = phase(f"{rate:g} a second", lambda: at_rate(server.port, mixed, rate, 60 * minutes))
    busy = phase(f"{BUSY} clients", lambda: by_crowd(server.port, shared_out(BUSY, mixed)))
    with Repeatedly(lambda: queue.append(server.metric("cvnet_queue")), QUEUE_SAMPLE_S):
        searches = (traffic.by_id(number, SHORTLIST) for number in count())
        overload = phase(f"{CROWD} clients", lambda: by_crowd(server.port, shared_out(CROWD, searches)))
    long = [traffic.streamed(number, LONG_SHORTLIST) for number in range(QUITTERS)]
    cancelled = by_quitters(server, long, LONG_SHORTLIST)
    return LoadReport(
        **commands.head("benchmarks.lab.load"),
        model=model,
        note=note,
        constant=constant,
        busy=busy,
        overload=overload,
        queue=int(max(queue)),
        cancelled=cancelled,
        memory=memory.samples,
        index_runs=writer.runs,
        exceptions=server.log().count("Traceback"),
    )


def phase(name: str, work: Callable[[], list[Answer]]) -> Phase:
    say(name)
    started = time.perf_counter()
    answers = work()
    return Phase.of(name, time.perf_counter() - started, answers)


def say(text: str) -> None:
    typer.echo(text, err=True)


if __name__ == "__main__":
    with commands.errors_as_one_line():
        typer.run(main)
