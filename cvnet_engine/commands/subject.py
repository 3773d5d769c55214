"""Models under evaluation: a bundle's engines, in this process or on a Ray cluster, and the PyTorch reference."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

from cvnet_engine import console
from cvnet_engine.benchmarks.accuracy.databases import ReferenceCollection, Selection
from cvnet_engine.benchmarks.accuracy.evaluation import Evaluation, QueryEntries, Task, Timed, evaluate
from cvnet_engine.benchmarks.accuracy.journal import Journal, image_facts
from cvnet_engine.benchmarks.accuracy.projection import Workload, rates, workload
from cvnet_engine.benchmarks.accuracy.ray_evaluation import complete_on_cluster
from cvnet_engine.benchmarks.methods.kept_memory import keep_memory
from cvnet_engine.benchmarks.methods.method import identity_of, open_reference
from cvnet_engine.commands.index import fill
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.cluster import Cluster
from cvnet_engine.engine.contract import Closing
from cvnet_engine.engine.errors import DatasetError, GalleryError
from cvnet_engine.engine.files import absolute
from cvnet_engine.engine.gallery.indexing import IndexReport
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.ray_indexing import indexer_with, opened_indexer
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.geometry import IMAGE_SCALES, Scales
from cvnet_engine.engine.presets import gallery_settings
from cvnet_engine.engine.retrieval.engines import Engines


class Subject(Protocol):
    """A model under evaluation; a context manager that closes it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def projection(self, task: Task, journal: Journal) -> tuple[Workload, float | None]:
        """Return the remaining work and its estimated seconds; None if they cannot be estimated before it starts."""

    def evaluate(self, task: Task, journal: Journal) -> Timed:
        """Complete the remaining work and evaluate all queries."""


class EngineSubject(Closing):
    """A bundle's engines in this process, with a gallery of the database images at native size."""

    def __init__(self, bundle: Bundle, gallery: Path, threads: int | None, scales: Scales = IMAGE_SCALES) -> None:
        self._bundle, self._gallery, self._threads, self._scales = bundle, gallery, threads, scales
        self._opened = contextlib.ExitStack()

    @cached_property
    def _engines(self) -> Engines:
        return self._opened.enter_context(Engines.open(self._bundle, self._threads, self._scales))

    def close(self) -> None:
        self._opened.close()

    def projection(self, task: Task, journal: Journal) -> tuple[Workload, float | None]:
        work = self._remaining(task, journal)
        return work, rates(self._engines, task.dataset.images[0]).seconds(work) if work.images else 0.0

    def _remaining(self, task: Task, journal: Journal) -> Workload:
        known: set[Path] = set()
        with (
            contextlib.suppress(GalleryError),
            Gallery(self._gallery) as gallery,
        ):  # missing, or damaged or of another model, which `evaluate` handles
            known = set(gallery.paths)
        images = [path for path in task.dataset.images if absolute(path) not in known]
        return remaining(QueryEntries(task, self._identity, journal), images)

    @cached_property
    def _settings(self) -> GalleryInfo:
        return gallery_settings(self._bundle.manifest, self._gallery, max_side_px=0, scales=self._scales)

    @property
    def _identity(self) -> str:
        """The model and the gallery's map format, because pair scores depend on both."""
        return f"{identity_of(self._bundle.manifest, self._scales)} {self._settings.maps}"

    def evaluate(self, task: Task, journal: Journal) -> Timed:
        started = time.perf_counter()
        report = IndexReport()
        with GalleryWriter(self._gallery, self._settings) as writer:
            self._fill([absolute(path) for path in task.dataset.images], writer, report)
        if report.failed:
            path, reason = next(iter(report.failed.items()))
            raise DatasetError(f"{len(report.failed)} database images unreadable ({path}: {reason}); copy them again")
        with Gallery(self._gallery) as gallery:
            indexed_s = time.perf_counter() - started
            database = Selection.of_gallery(gallery, task.dataset.images)
            evaluation = self._judge(database, QueryEntries(task, self._identity, journal))
        indexed = report.added + report.updated  # the time covers only these, not images indexed earlier
        return evaluation, {"index": indexed_s, "indexed": indexed, "queries": evaluation.seconds}

    def _fill(self, paths: Sequence[Path], writer: GalleryWriter, report: IndexReport) -> None:
        fill(indexer_with(self._engines), paths, writer, report)

    def _judge(self, database: Selection, entries: QueryEntries) -> Evaluation:
        with self._judging(entries.task) as advance:
            return evaluate(entries.task, database, lambda: self._engines, entries, advance)

    def _judging(self, task: Task) -> contextlib.AbstractContextManager[Callable[..., None]]:
        return console.progress(f"evaluating {self._bundle.path.resolve().name}", len(task.queries))


class ClusterSubject(EngineSubject):
    """A bundle's engines in the processes of a Ray cluster."""

    def __init__(self, bundle: Bundle, gallery: Path, cluster: Cluster, scales: Scales) -> None:
        super().__init__(bundle, gallery, cluster.threads, scales)
        self._cluster = cluster

    def projection(self, task: Task, journal: Journal) -> tuple[Workload, float | None]:
        return self._remaining(task, journal), None

    def _fill(self, paths: Sequence[Path], writer: GalleryWriter, report: IndexReport) -> None:
        with opened_indexer(self._bundle, self._settings, cluster=self._cluster) as indexer:
            fill(indexer, paths, writer, report)

    def _judge(self, database: Selection, entries: QueryEntries) -> Evaluation:
        with self._judging(entries.task) as advance:
            complete_on_cluster(database, entries, self._bundle, self._gallery, self._scales, self._cluster, advance)
        # rounding on another processor can change a shortlist; this process scores the pairs that are missing
        return evaluate(entries.task, database, lambda: self._engines, entries)


class ReferenceSubject(Closing):
    """The PyTorch model that a bundle was built from, at full resolution, with the database features in memory."""

    def __init__(self, bundle: Bundle, threads: int | None, scales: Scales = IMAGE_SCALES) -> None:
        keep_memory()
        self._method = open_reference(bundle, threads).at(scales)

    def close(self) -> None:
        self._method.close()

    def projection(self, task: Task, journal: Journal) -> tuple[Workload, float | None]:
        task, identity = replace(task, rerank_full=None), self._method.identity
        images = [path for path in task.dataset.images if journal.get(image_facts(identity, path)) is None]
        work = remaining(QueryEntries(task, identity, journal), images)
        return work, rates(self._method.engines, task.dataset.images[0]).seconds(work) if work.images else 0.0

    def evaluate(self, task: Task, journal: Journal) -> Timed:
        task, identity, engines = replace(task, rerank_full=None), self._method.identity, self._method.engines
        with console.progress("describing with PyTorch", len(task.dataset.images)) as advance:
            collection = ReferenceCollection(task.dataset, engines, identity, journal, advance)
        with console.progress(f"evaluating {self._method.name}", len(task.queries)) as advance:
            evaluation = evaluate(task, collection, lambda: engines, QueryEntries(task, identity, journal), advance)
        indexed = len(task.dataset.images)
        return evaluation, {"index": collection.seconds, "indexed": indexed, "queries": evaluation.seconds}


def remaining(entries: QueryEntries, images: list[Path]) -> Workload:
    """Return the work of extracting features of `images` and of the queries that are not entries."""
    task = entries.task
    left = [number for number in task.queries if entries.get(number) is None]
    plan = task.plan(max(task.shortlists, default=0))
    return workload(task.dataset, images, left, plan.pairs, plan.full_pairs)
