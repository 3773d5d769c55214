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
from functools import partial
from pathlib import Path

from cvnet_engine.benchmarks.latency.report import Speedup
from cvnet_engine.benchmarks.latency.stages import jpeg, photo, stock
from cvnet_engine.benchmarks.latency.timing import Interval, Rounds, ratio, take_turns
from cvnet_engine.benchmarks.methods.comparison import prepare
from cvnet_engine.benchmarks.methods.method import REFERENCE, open_bundle
from cvnet_engine.benchmarks.runs import Circumstances, Settings, label_of
from cvnet_engine.benchmarks.throughput.baseline import Reference
from cvnet_engine.benchmarks.throughput.report import INDEXING, SEARCH, Rate, ThroughputReport
from cvnet_engine.benchmarks.throughput.worker_pool import BATCH, Clients, Indexer, Spread, Worker, WorkerPool, spreads
from cvnet_engine.engine.backends import known
from cvnet_engine.engine.bundle import Bundle

ROUNDS = Rounds(warm_up=1, fewest=3, most=3)
KEYS = 2  # distinct images in a gallery, repeated


Maker = tuple[Spread, Callable[[], Worker], Sequence[Path]]  # with the files of a round


@dataclass(frozen=True)
class Configuration:
    """A spread for one kind of work, its open workers, and the files of a round."""

    spread: Spread
    pool: WorkerPool
    files: Sequence[Path]


def run(settings: Settings, command: str, say: Callable[[str], None]) -> ThroughputReport:
    """Measure the first image size and the shortest shortlist; `say` receives progress messages."""
    started, load = time.perf_counter(), os.getloadavg()[0]
    records: list[Rate] = []
    with tempfile.TemporaryDirectory(prefix="cvnet-bench-") as folder:
        files = write_photos(settings, Path(folder))
        for bundle in settings.bundles:
            say(f"{bundle.resolve().name}: indexing")
            records += index_records(settings, bundle, files)
            say(f"{bundle.resolve().name}: search")
            records += search_records(settings, bundle, files, Path(folder) / bundle.resolve().name)
    return ThroughputReport(
        **vars(Circumstances.of(settings, command, started)),
        load=load,
        size=label_of(settings.sizes[0]),
        shortlist=settings.shortlists[0],
        records=tuple(records),
    )


def write_photos(settings: Settings, folder: Path) -> list[Path]:
    """Write JPEG files, at least two per engine."""
    files = [folder / f"{number}.jpg" for number in range(max(BATCH, 2 * settings.threads))]
    for number, file in enumerate(files):
        file.write_bytes(jpeg(photo(*settings.sizes[0], number)))
    return files


def index_records(settings: Settings, bundle: Path, files: Sequence[Path]) -> list[Rate]:
    makers: list[Maker] = [(reference_spread(settings), partial(Reference, bundle, settings.threads, files), files)]
    for spread in spreads(settings.threads):
        if spread.batch == 1 or not is_plan(bundle):
            makers.append((spread, partial(Indexer, bundle, spread), files))
    return measured(INDEXING, bundle, makers)


def is_plan(bundle: Path) -> bool:
    """True if the bundle's image graphs are compiled plans, which take one image at a time."""
    return known(Bundle(bundle).manifest.graphs["features"].backend).suffix == ".plan"


def search_records(settings: Settings, bundle: Path, files: Sequence[Path], gallery: Path) -> list[Rate]:
    """Measure search with one image per extraction, because pairs are scored in batches anyway.

    PyTorch runs one query per round, because it is slow.
    """
    with open_bundle(bundle, settings.threads) as method:
        prepared = prepare(method, [photo(*settings.sizes[0], number) for number in range(1 + KEYS)])
        stock(prepared, settings.shortlists[0], gallery).gallery.close()
    keys, shortlist = files[1 : 1 + KEYS], settings.shortlists[0]
    reference = partial(Reference, bundle, settings.threads, files[:1], keys, shortlist)
    makers: list[Maker] = [(reference_spread(settings), reference, files[:1])]
    for spread in spreads(settings.threads):
        if spread.batch == 1:
            makers.append((spread, partial(Clients, bundle, spread, gallery, shortlist), files))
    return measured(SEARCH, bundle, makers)


def reference_spread(settings: Settings) -> Spread:
    return Spread(1, 1, 1, settings.threads)


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
