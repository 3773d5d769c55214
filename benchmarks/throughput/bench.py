"""Throughput benchmark: images indexed and queries answered per second, by configuration, compared with PyTorch.

The configurations of a bundle take turns. Each has its engines open from the start and is fully loaded.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

from cvnet_engine.benchmarks.latency.records import Speedup
from cvnet_engine.benchmarks.latency.stages import jpeg, photo, stock
from cvnet_engine.benchmarks.latency.timing import Interval, Rounds, ratio, take_turns
from cvnet_engine.benchmarks.methods.candidate import describe
from cvnet_engine.benchmarks.methods.method import REFERENCE, open_bundle
from cvnet_engine.benchmarks.throughput import baseline, worker_pool
from cvnet_engine.benchmarks.throughput.baseline import Baseline
from cvnet_engine.benchmarks.throughput.report import INDEXING, SEARCH, Rate, ThroughputReport
from cvnet_engine.benchmarks.throughput.worker_pool import BATCH, Spread, WorkerPool, spreads
from cvnet_engine.engine import machine
from cvnet_engine.engine.backends import known
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.geometry import Size

ROUNDS = Rounds(warm_up=1, fewest=3, most=3)
KEYS = 2  # distinct images in a gallery, repeated


@dataclass(frozen=True)
class Options:
    """Settings: bundles of one model, image size (height, width) px, candidates per query, and threads."""

    bundles: tuple[Path, ...]
    size: Size
    shortlist: int
    threads: int


@dataclass(frozen=True)
class Way:
    """A configuration for one kind of work, its workers, and the files of a round."""

    spread: Spread
    worker: WorkerPool | Baseline
    files: Sequence[Path]


def run(options: Options, command: str, say: Callable[[str], None]) -> ThroughputReport:
    """Run the whole benchmark; `say` receives progress messages."""
    started, load = time.perf_counter(), os.getloadavg()[0]
    records: list[Rate] = []
    with tempfile.TemporaryDirectory(prefix="cvnet-bench-") as folder:
        files = write_photos(options, Path(folder))
        for bundle in options.bundles:
            say(f"{bundle.resolve().name}: indexing")
            records += index_records(options, bundle, files)
            say(f"{bundle.resolve().name}: search")
            records += search_records(options, bundle, files, Path(folder) / bundle.resolve().name)
    manifest = Bundle(options.bundles[0]).manifest
    return ThroughputReport(
        command=command,
        date=date.today().isoformat(),
        machine=machine.describe(),
        load=load,
        seconds=time.perf_counter() - started,
        threads=options.threads,
        model=f"ResNet-{manifest.depth} {manifest.weights}",
        trained=manifest.trained,
        size=f"{options.size[1]}x{options.size[0]}",
        shortlist=options.shortlist,
        records=tuple(records),
    )


def write_photos(options: Options, folder: Path) -> list[Path]:
    """Write JPEG files, at least two per engine."""
    files = [folder / f"{number}.jpg" for number in range(max(BATCH, 2 * options.threads))]
    for number, file in enumerate(files):
        file.write_bytes(jpeg(photo(*options.size, number)))
    return files


def index_records(options: Options, bundle: Path, files: Sequence[Path]) -> list[Rate]:
    with contextlib.ExitStack() as opened:
        ways = [reference(opened, baseline.Job(bundle, options.threads), files)]
        for spread in spreads(options.threads):
            if spread.batch == 1 or not is_plan(bundle):
                ways.append(Way(spread, opened.enter_context(WorkerPool(worker_pool.Job(bundle, spread))), files))
        return measured(INDEXING, bundle, ways)


def is_plan(bundle: Path) -> bool:
    """True if the bundle's image graphs are compiled plans, which take one image at a time."""
    return known(Bundle(bundle).manifest.graphs["features"].backend).suffix == ".plan"


def search_records(options: Options, bundle: Path, files: Sequence[Path], gallery: Path) -> list[Rate]:
    """Measure search with one image per extraction, because pairs are scored in batches anyway.

    PyTorch runs one query per round, because it is slow.
    """
    with open_bundle(bundle, options.threads) as method:
        candidate = describe(method, [photo(*options.size, number) for number in range(1 + KEYS)])
        stock(candidate, options.shortlist, gallery).gallery.close()
    with contextlib.ExitStack() as opened:
        job = baseline.Job(bundle, options.threads, tuple(files[1 : 1 + KEYS]), options.shortlist)
        ways = [reference(opened, job, files[:1])]
        for spread in spreads(options.threads):
            if spread.batch == 1:
                searching = worker_pool.Job(bundle, spread, gallery, options.shortlist)
                ways.append(Way(spread, opened.enter_context(WorkerPool(searching)), files))
        return measured(SEARCH, bundle, ways)


def reference(opened: contextlib.ExitStack, job: baseline.Job, files: Sequence[Path]) -> Way:
    return Way(Spread(1, 1, 1, job.threads), opened.enter_context(Baseline(job, files)), files)


def measured(work: str, bundle: Path, ways: Sequence[Way]) -> list[Rate]:
    """Measure the configurations in turn; returns a record for each, the reference's first."""
    calls = {str(number): partial(way.worker.run, way.files) for number, way in enumerate(ways)}
    times = take_turns(calls, ROUNDS).values()
    rates = [Interval.of([len(way.files) / s for s in i.samples]) for way, i in zip(ways, times, strict=True)]
    manifest, name = Bundle(bundle).manifest, bundle.resolve().name
    who = [(REFERENCE, "torch", "fp32"), *[(name, manifest.backend, manifest.precision)] * (len(ways) - 1)]
    return [
        Rate(
            work,
            *whose,
            way.spread,
            rate,
            tuple(way.worker.seconds[len(way.files) :]),  # without the warm-up round
            speedup(rate, rates[0]) if whose[0] != REFERENCE else None,
        )
        for whose, way, rate in zip(who, ways, rates, strict=True)
    ]


def speedup(rate: Interval, reference: Interval) -> Speedup:
    """Return the speed-up over the reference, from rates of the same rounds."""
    found = ratio(rate, reference)
    return Speedup(found.median, found.low, found.high)
