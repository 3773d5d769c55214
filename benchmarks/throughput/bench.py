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
from cvnet_engine.benchmarks.throughput.baseline import Reference
from cvnet_engine.benchmarks.throughput.report import INDEXING, SEARCH, Rate, ThroughputReport
from cvnet_engine.benchmarks.throughput.worker_pool import BATCH, Clients, Indexer, Spread, Worker, WorkerPool, spreads
from cvnet_engine.engine import machine
from cvnet_engine.engine.backends import known
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.geometry import Size

ROUNDS = Rounds(warm_up=1, fewest=3, most=3)
KEYS = 2  # distinct images in a gallery, repeated


Maker = tuple[Spread, Callable[[], Worker], Sequence[Path]]  # with the files of a round


@dataclass(frozen=True)
class Options:
    """Settings: bundles of one model, image size (height, width) px, candidates per query, and threads."""

    bundles: tuple[Path, ...]
    size: Size
    shortlist: int
    threads: int


@dataclass(frozen=True)
class Configuration:
    """A spread for one kind of work, its open workers, and the files of a round."""

    spread: Spread
    pool: WorkerPool
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
    makers: list[Maker] = [(reference_spread(options), partial(Reference, bundle, options.threads, files), files)]
    for spread in spreads(options.threads):
        if spread.batch == 1 or not is_plan(bundle):
            makers.append((spread, partial(Indexer, bundle, spread), files))
    return measured(INDEXING, bundle, makers)


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
    keys, shortlist = files[1 : 1 + KEYS], options.shortlist
    reference = partial(Reference, bundle, options.threads, files[:1], keys, shortlist)
    makers: list[Maker] = [(reference_spread(options), reference, files[:1])]
    for spread in spreads(options.threads):
        if spread.batch == 1:
            makers.append((spread, partial(Clients, bundle, spread, gallery, shortlist), files))
    return measured(SEARCH, bundle, makers)


def reference_spread(options: Options) -> Spread:
    return Spread(1, 1, 1, options.threads)


def measured(work: str, bundle: Path, makers: Sequence[Maker]) -> list[Rate]:
    """Open the workers of all configurations and measure these in turn; returns a record for each."""
    with contextlib.ExitStack() as opened:
        return rates(
            work,
            bundle,
            [
                Configuration(spread, opened.enter_context(WorkerPool(make, spread.processes)), files)
                for spread, make, files in makers
            ],
        )


def rates(work: str, bundle: Path, configurations: Sequence[Configuration]) -> list[Rate]:
    """Measure configurations in turn, the reference's first; returns a record for each."""
    calls = {str(number): partial(c.pool.run, c.files) for number, c in enumerate(configurations)}
    times = take_turns(calls, ROUNDS).values()
    found = [Interval.of([len(c.files) / s for s in i.samples]) for c, i in zip(configurations, times, strict=True)]
    manifest, name = Bundle(bundle).manifest, bundle.resolve().name
    who = [(REFERENCE, "torch", "fp32"), *[(name, manifest.backend, manifest.precision)] * (len(found) - 1)]
    return [
        Rate(
            work,
            *whose,
            c.spread,
            rate,
            tuple(c.pool.seconds[len(c.files) :]),  # without the warm-up round
            speedup(rate, found[0]) if whose[0] != REFERENCE else None,
        )
        for whose, c, rate in zip(who, configurations, found, strict=True)
    ]


def speedup(rate: Interval, reference: Interval) -> Speedup:
    """Return the speed-up over the reference, from rates of the same rounds."""
    found = ratio(rate, reference)
    return Speedup(found.median, found.low, found.high)
