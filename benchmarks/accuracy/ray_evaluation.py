"""Evaluation on a Ray cluster: workers compute the queries, this process writes the journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cvnet_engine.benchmarks.accuracy.databases import Selection
from cvnet_engine.benchmarks.accuracy.evaluation import (
    MissingWorkError,
    Query,
    QueryEntries,
    QueryWork,
    Task,
    evaluate_query,
)
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.cluster import Cluster, Worker, worker_pool
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.geometry import Scales
from cvnet_engine.engine.retrieval.engines import Collection


class QueryWorker(Worker):
    """A worker that computes queries of a task against a gallery."""

    def __init__(self, bundle: Path, threads: int, scales: Scales, task: Task, gallery: Path) -> None:
        super().__init__(bundle, threads, scales)
        self._task, self._gallery = task, gallery

    def start(self) -> None:
        """Open the engines and the gallery.

        Raises:
            CvnetError: one of them cannot be opened.
        """
        super().start()
        self._database = Selection.of_gallery(Gallery(self._gallery), self._task.dataset.images)
        self._descriptors = self._database.descriptors  # (n, 2048)

    def complete(self, number: int, work: QueryWork | None) -> tuple[int, QueryWork]:
        """Compute what is missing of a query; returns its number and its complete work."""
        query = Query(self._task, number, self._database, work, lambda: self.engines)
        evaluate_query(query, self._descriptors)
        return number, query.work


def complete_on_cluster(
    collection: Collection,
    entries: QueryEntries,
    bundle: Bundle,
    gallery: Path,
    scales: Scales,
    cluster: Cluster,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Complete every query, writing each to the journal when it finishes.

    Args:
        collection: selection from `gallery`; its rows are those of the data set.
        scales: image scales of the queries.
        done: called after each query.

    Raises:
        BackendError: Ray is not installed, or the cluster cannot be reached.
        CvnetError: a query failed; the queries finished before it are in the journal.
    """
    task, descriptors = entries.task, collection.descriptors[:]
    left = []
    for number in task.queries:
        work = entries.get(number)
        try:
            evaluate_query(Query(task, number, collection, work, None), descriptors)
            done()
        except MissingWorkError:
            left.append((number, work))
    if not left:
        return
    with worker_pool(QueryWorker, bundle, cluster, scales, task, gallery.absolute()) as workers:
        for number, work in left:
            workers.give("complete", number, work)
        for _ in left:
            entries.put(*workers.result())
            done()
