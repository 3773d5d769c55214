"""Latency benchmark of every stage of retrieval: bundles and the PyTorch reference, at several image sizes.

The methods of a stage take turns in one run. A method whose results differ from the reference's is not timed.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cvnet_engine.benchmarks.latency import memory
from cvnet_engine.benchmarks.latency.costs import Network
from cvnet_engine.benchmarks.latency.limits import Ceiling
from cvnet_engine.benchmarks.latency.report import Record, Report, against, records_of
from cvnet_engine.benchmarks.latency.stages import (
    Shelf,
    Stage,
    gallery_stages,
    image_stages,
    indexing_stage,
    photo,
    scale_stages,
    search_stage,
    stock,
    whole_stages,
)
from cvnet_engine.benchmarks.latency.timing import Interval, take_passes
from cvnet_engine.benchmarks.methods.comparison import Comparison, Difference, Prepared, compare
from cvnet_engine.benchmarks.methods.kept_memory import keeping_reference
from cvnet_engine.benchmarks.methods.method import (
    COMPILED,
    KEEPING,
    PUBLISHED,
    REFERENCE,
    Method,
    open_bundle,
    open_reference,
)
from cvnet_engine.benchmarks.runs import Circumstances, Settings, label_of
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.geometry import MIN_SIDE_PX, Size

KEYS = 2  # database images that the query is compared with
GROWTH = (0.25, 0.5, 0.75)  # fractions of the largest image's sides


@dataclass
class Run:
    """Measurements of a run in progress."""

    settings: Settings
    folder: Path
    say: Callable[[str], None]
    methods: dict[str, Method]
    ceiling: Ceiling = field(default_factory=Ceiling)
    records: list[Record] = field(default_factory=list)
    agreements: dict[str, dict[str, Difference]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def look(self) -> None:
        self.say("machine: matrix products, copying")
        self.ceiling.look(self.settings.threads)

    def measure(self, stages: Sequence[Stage], size: str, series: str = "stages", threads: int | None = None) -> None:
        """Time every stage and append the records."""

        def heard(number: int, index: int) -> None:
            stage = stages[index]
            self.say(" ".join(filter(None, (size, stage.name, str(stage.count or ""), f"pass {number + 1}"))))

        times = take_passes([stage.calls for stage in stages], self.settings.budget_s, heard)
        threads = threads or self.settings.threads
        for stage, by_method in zip(stages, times, strict=True):
            self.records += records_of(stage, by_method, self.methods, series, size, threads)

    def find(self, stage: str, size: str, method: str) -> Record:
        """Return the record of a stage that has no count."""
        return next(r for r in self.records if (r.series, r.stage, r.size, r.method) == ("stages", stage, size, method))

    def report(self, command: str, started: float) -> Report:
        """Return the report of a run that ends now; `started` is of `time.perf_counter`."""
        ceiling = self.ceiling
        return Report(
            **vars(Circumstances.of(self.settings, command, started)),
            limits=ceiling,
            agreement=self.agreements,
            absent=self.absent,
            records=tuple(replace(r, floor_ms=ceiling.floor_ms(r.cost, r.precision)) for r in self.records),
        )


def run(settings: Settings, command: str, say: Callable[[str], None]) -> Report:
    """Run the whole benchmark; `say` receives progress messages."""
    started = time.perf_counter()
    say("opening")
    with contextlib.ExitStack() as opened, tempfile.TemporaryDirectory(prefix="cvnet-bench-") as folder:
        methods, absent = open_all(settings, opened)
        bench = Run(settings, Path(folder), say, methods, absent=absent)
        bench.look()
        for size in settings.sizes:
            measure_size(bench, size)
            bench.look()
        measure_search(bench)
        measure_growth(bench)
        measure_threads(bench)
        bench.look()
    measure_memory(bench)
    return bench.report(command, started)


def open_all(settings: Settings, opened: contextlib.ExitStack) -> tuple[dict[str, Method], dict[str, str]]:
    """Open the reference and the bundles, which `opened` closes; also returns why `torch.compile` is not timed."""
    first = Bundle(settings.bundles[0])
    methods = [opened.enter_context(open_reference(first, settings.threads))]
    absent = {}
    if settings.compiled:
        methods.append(opened.enter_context(open_reference(first, settings.threads, compiled=True)))
    else:
        absent[COMPILED] = "not requested: --compiled adds it and takes minutes longer"
    methods += [opened.enter_context(open_bundle(path, settings.threads)) for path in settings.bundles]
    return {method.name: method for method in methods}, absent


def measure_size(bench: Run, size: Size) -> None:
    """Measure every stage at one image size."""
    label, network = label_of(size), network_of(bench.settings)
    image = photo(*size, 0)
    bench.say(f"{label} agreement with PyTorch")
    compared = compare(list(bench.methods.values()), photos(size))
    note(bench, label, compared)
    engines = [prepared for prepared in compared.prepared if not prepared.method.is_reference]
    reference, settings = compared.prepared[0], bench.settings
    with (
        contextlib.ExitStack() as opened,
        tempfile.TemporaryDirectory(dir=bench.folder) as folder,
        keeping_reference(settings.bundles[0], settings.threads, image, reference.query, reference.keys[0]) as keeping,
    ):
        stages = [
            *image_stages(image),
            *scale_stages(compared.prepared, image, network),
            *whole_stages(compared.prepared, image, network, *({KEEPING: call} for call in keeping)),
        ]
        shelves = stock_all(engines, max(bench.settings.shortlists), Path(folder))
        for shelf in shelves.values():
            opened.enter_context(shelf.gallery)
        if engines:
            stages += gallery_stages(shelves, image, bench.settings.shortlists, network)
            stages.append(indexing_stage(engines, image, network, Path(folder)))
        bench.measure(stages, label)
    for stage in stages:
        if PUBLISHED in stage.baselines and stage.count:
            project(bench, stage, label)


def photos(size: Size) -> list[Array]:
    """Return a query and its database images."""
    return [photo(*size, seed) for seed in range(1 + KEYS)]


def note(bench: Run, label: str, compared: Comparison) -> None:
    bench.agreements[label] = compared.differences
    bench.absent |= {f"{name} at {label}": reason for name, reason in compared.refused.items()}


def stock_all(engines: Sequence[Prepared], images: int, folder: Path) -> dict[str, Shelf]:
    """Create a gallery per bundle."""
    return {e.method.name: stock(e, images, folder / e.method.name) for e in engines}


def project(bench: Run, stage: Stage, label: str) -> None:
    """Add PyTorch's estimated times of a stage, with cached features and as published, and the speed-ups over both."""
    baselines = [projected(bench, stage, label, method) for method in (REFERENCE, PUBLISHED)]
    for index, record in enumerate(bench.records):
        if (record.stage, record.size, record.count) == (stage.name, label, stage.count):
            for baseline in baselines:
                record = against(record, baseline)
            bench.records[index] = record
    bench.records += baselines


def projected(bench: Run, stage: Stage, label: str, method: str) -> Record:
    """Estimate PyTorch's time from its time per pair, plus its extraction time for a whole query."""
    assert stage.count is not None
    pair = bench.find("pair score", label, method)
    ms = pair.ms.scaled(stage.count)
    if stage.name == "whole query":
        ms = added(bench.find("extract, all scales", label, REFERENCE).ms, ms)
    return replace(
        pair,
        stage=stage.name,
        count=stage.count,
        unit=stage.unit,
        ms=ms,
        cost=stage.cost,
        projected=True,
        speedups={},
    )


def added(a: Interval, b: Interval) -> Interval:
    """Return the sum of two times that were not measured in turn.

    Its samples are those of `b` plus the median of `a`; its confidence is a lower bound (Bonferroni).
    """
    confidence = max(0.0, a.confidence + b.confidence - 1)
    samples = tuple(a.median + sample for sample in b.samples)
    return Interval(samples, a.median + b.median, a.low + b.low, a.high + b.high, confidence)


def measure_search(bench: Run) -> None:
    """Time global search with increasing numbers of descriptors."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        bench.measure([search_stage(images, Path(folder)) for images in bench.settings.galleries], "")


def measure_growth(bench: Run) -> None:
    """Time the bundles at further image sizes, up to the largest."""
    largest = max(bench.settings.sizes, key=lambda size: size[0] * size[1])
    engines = [c for c in bench.methods.values() if not c.is_reference]
    for size in growth_sizes(largest):
        compared = compare(engines, photos(size))
        bench.absent |= {f"{name} at {label_of(size)}": reason for name, reason in compared.refused.items()}
        stages = whole_stages(compared.prepared, photo(*size, 0), network_of(bench.settings))
        bench.measure(stages, label_of(size), "size")


def growth_sizes(largest: Size) -> list[Size]:
    """Return the fractions `GROWTH` of an image size that are large enough to extract, and the full size."""
    sizes = [(round(largest[0] * share), round(largest[1] * share)) for share in (*GROWTH, 1.0)]
    return [size for size in sizes if min(size) >= MIN_SIDE_PX]


def measure_threads(bench: Run) -> None:
    """Time the bundles with 1, 2, 4, ... threads, at the first image size."""
    size, network = bench.settings.sizes[0], network_of(bench.settings)
    for threads in thread_counts(bench.settings.threads):
        with contextlib.ExitStack() as opened:
            engines = [opened.enter_context(open_bundle(path, threads)) for path in bench.settings.bundles]
            compared = compare(engines, photos(size))
            stages = whole_stages(compared.prepared, photo(*size, 0), network)
            bench.measure(stages, label_of(size), "threads", threads)


def thread_counts(most: int) -> list[int]:
    """Return the powers of two up to `most`, and `most`."""
    return sorted({most, *(2**n for n in range(most.bit_length()))} - {0})


def measure_memory(bench: Run) -> None:
    """Measure the peak memory of the stages in `memory.STAGES`, by method and image size."""
    settings = bench.settings
    found: dict[tuple[str, str, str], int] = {}
    subjects = [(REFERENCE, settings.bundles[0], True), *((p.resolve().name, p, False) for p in settings.bundles)]
    for size in settings.sizes:
        for name, bundle, of_reference in subjects:
            bench.say(f"{label_of(size)} peak memory of {name}")
            peaks = memory.peaks(bundle, of_reference, size, settings.threads)
            found |= {(stage, label_of(size), name): peak for stage, peak in peaks.items()}
    bench.records = [
        replace(r, peak_bytes=found.get((r.stage, r.size, r.method))) if r.series == "stages" else r
        for r in bench.records
    ]


def network_of(settings: Settings) -> Network:
    manifest = Bundle(settings.bundles[0]).manifest
    return Network(manifest.depth, manifest.descriptor)
