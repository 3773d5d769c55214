"""A model under evaluation: how its database is described, what is left to do, and how it does."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self

from benchmarks.accuracy.dataset import Dataset
from benchmarks.accuracy.evaluation import Evaluation, Evaluator, Selection, Timed, database_digest, fine_identity
from benchmarks.accuracy.journal import Journal, image_facts, query_facts
from benchmarks.accuracy.projection import Workload, rates, workload
from benchmarks.contenders.allocator import keep_memory
from benchmarks.contenders.contender import Contender, open_bundle, open_reference
from cvnet_engine import console
from cvnet_engine.commands.index import fill
from engine.bundle import Bundle
from engine.contract import Closing
from engine.errors import DatasetError, GalleryError
from engine.files import absolute
from engine.gallery.indexing import IndexReport
from engine.gallery.info import GalleryInfo, kind_of
from engine.gallery.reader import Gallery
from engine.gallery.writer import GalleryWriter
from engine.geometry import IMAGE_SCALES
from engine.retrieval.retriever import Collection
from engine.retrieval.searcher import Plan, RerankWith
from engine.scales import Scales


@dataclass(frozen=True)
class Task:
    """What is evaluated: shortlist lengths ascending, queries cropped to their boxes or not, work kept in a journal.

    `method` and `fine` are those of `Plan`.
    """

    dataset: Dataset
    shortlists: tuple[int, ...]
    cropped: bool
    journal: Journal
    method: RerankWith = "cvnet"
    fine: int | None = None


class Subject(Protocol):
    """A model under evaluation; a context manager, which closes it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def projection(self, task: Task) -> tuple[Workload, float]:
        """What is left to do, and the seconds that it will take."""

    def evaluate(self, task: Task) -> Timed:
        """Do what is left, and judge."""


class EngineSubject(Closing):
    """A bundle's engines over a gallery of the database, at native image size."""

    def __init__(self, bundle: Bundle, gallery: Path, threads: int | None, scales: Scales = IMAGE_SCALES) -> None:
        self._bundle, self._gallery = bundle, gallery
        self._contender = open_bundle(bundle.path, threads).at(scales)

    def close(self) -> None:
        self._contender.close()

    def projection(self, task: Task) -> tuple[Workload, float]:
        known: set[Path] = set()
        with contextlib.suppress(GalleryError), Gallery(self._gallery) as gallery:  # none yet, or one to mend or refuse
            known = set(gallery.paths)
        images = [path for path in task.dataset.images if absolute(path) not in known]
        return project(task, self._contender, self._identity, images)

    @property
    def _identity(self) -> str:
        """Pair scores depend on how the gallery keeps its maps, too."""
        return f"{self._contender.identity} {kind_of(self._gallery)}"

    def evaluate(self, task: Task) -> Timed:
        started = time.perf_counter()
        report = IndexReport()
        scales = self._contender.retriever.scales
        made = GalleryInfo.made_with(self._bundle.manifest, None, kind_of(self._gallery), scales)
        with GalleryWriter(self._gallery, made) as writer:
            fill([absolute(path) for path in task.dataset.images], self._contender.retriever, writer, report)
        if report.failed:
            path, reason = next(iter(report.failed.items()))
            raise DatasetError(f"{len(report.failed)} database images unreadable ({path}: {reason}); copy them again")
        with Gallery(self._gallery) as gallery:
            indexed_s = time.perf_counter() - started
            database = Selection.of_gallery(gallery, task.dataset.images)
            evaluation = judge(task, self._contender, self._identity, database)
        indexed = report.added + report.updated  # a gallery does not keep what its other images took
        return evaluation, {"index": indexed_s, "indexed": indexed, "queries": evaluation.seconds}


class ReferenceSubject(Closing):
    """The PyTorch model that a bundle was built from, candidate features kept; it scores every pair in full."""

    def __init__(self, bundle: Bundle, threads: int | None, scales: Scales = IMAGE_SCALES) -> None:
        keep_memory()
        self._contender = open_reference(bundle, threads).at(scales)

    def close(self) -> None:
        self._contender.close()

    def projection(self, task: Task) -> tuple[Workload, float]:
        task, identity = replace(task, fine=None), self._contender.identity
        images = [path for path in task.dataset.images if task.journal.get(image_facts(identity, path)) is None]
        return project(task, self._contender, identity, images)

    def evaluate(self, task: Task) -> Timed:
        from benchmarks.accuracy.reference_collection import ReferenceCollection

        task, identity, retriever = replace(task, fine=None), self._contender.identity, self._contender.retriever
        with console.progress("describing with PyTorch", len(task.dataset.images)) as advance:
            collection = ReferenceCollection(task.dataset, retriever, identity, task.journal, advance)
        evaluation = judge(task, self._contender, identity, collection)
        indexed = len(task.dataset.images)
        return evaluation, {"index": collection.seconds, "indexed": indexed, "queries": evaluation.seconds}


def judge(task: Task, contender: Contender, identity: str, collection: Collection) -> Evaluation:
    """Evaluate every query, with progress."""
    dataset = task.dataset
    evaluator = Evaluator(
        dataset,
        contender.retriever,
        identity,
        collection,
        task.shortlists,
        task.cropped,
        task.journal,
        task.method,
        task.fine,
    )
    with console.progress(f"evaluating {contender.name}", len(dataset.queries)) as advance:
        return evaluator.run(advance)


def project(task: Task, contender: Contender, identity: str, images: list[Path]) -> tuple[Workload, float]:
    """What is left of describing `images` and of the queries; measured on one image where anything is left."""
    dataset = task.dataset
    database, identity = database_digest(dataset), fine_identity(identity, task.fine)
    left = [
        row
        for row, (path, truth) in enumerate(zip(dataset.queries, dataset.ground_truth, strict=True))
        if task.journal.get(query_facts(identity, path, truth.bbx if task.cropped else None, database)) is None
    ]
    plan = Plan(rerank=max(task.shortlists, default=0), method=task.method, fine=task.fine)
    work = workload(dataset, images, left, plan.pairs, task.cropped, plan.full_pairs)
    if not work.images:
        return work, 0.0
    return work, rates(contender.retriever, dataset.images[0]).seconds(work)
