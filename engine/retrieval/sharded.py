"""Search of a collection whose shards are spread over several workers, with the same results as in one process.

A worker receives the features of a query and returns rankings and pair scores; feature maps stay with the workers. If
a worker stops answering, a running search restarts without its shards.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Protocol

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import ShardsLostError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.geometry import DESCRIPTOR_DIM, Size
from cvnet_engine.engine.retrieval.engines import batches_of_equal
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.searcher import Batches, Plan, Ranked, Reranked, Scored, steps_in

AHEAD = 2  # batches per worker and search: it reads the maps of one while it scores the other


class Shards(Protocol):
    """Interface of a shard worker: consecutive rows of a collection, numbered from 0.

    Calls raise `ShardsLostError` if the worker is down.
    """

    def __len__(self) -> int:
        """Return the number of rows."""

    def is_here(self) -> bool:
        """Return False if the worker is known to be down."""

    def search(self, descriptor: Array, k: int, selection: Array | None) -> Future[Ranking]:
        """See `Searchable.search`."""

    def descriptors(self, rows: Array) -> Future[Array]:
        """See `Searchable.descriptors`."""

    def score(self, query: Any, rows: list[int], coarse: bool) -> Future[Array]:
        """Return pair scores (n,) float32 of a query and rows whose maps have one size.

        Args:
            query: value returned by `send` (see `ShardedSearcher`).
            coarse: score at coarse resolution.
        """


@dataclass(frozen=True)
class Coverage:
    """First step of each attempt at a search: the number of unsearched images and of workers that are down."""

    missing_images: int
    missing_workers: int
    workers: int


@dataclass(frozen=True)
class Assignment:
    """A shard worker and its rows in the collection."""

    rows: range
    worker: Shards

    def within(self, rows: Array) -> tuple[slice, Array]:
        """Return the slice of `rows` (n,) int64, ascending, that this worker has, and their numbers in the worker."""
        part = slice(*np.searchsorted(rows, (self.rows.start, self.rows.stop)).tolist())
        return part, rows[part] - self.rows.start

    def score(self, sent: Any, rows: list[int], coarse: bool) -> Future[Array]:
        return self.worker.score(sent, [row - self.rows.start for row in rows], coarse)


class ShardedSearcher:
    """Search a collection whose shards are searched by several workers, as `Searcher` does in one process."""

    def __init__(
        self,
        map_size: Callable[[int], Size],
        workers: Sequence[Shards],
        send: Callable[[Features], Any] = lambda query: query,
    ) -> None:
        """
        Args:
            map_size: positions of the full-scale map of a row.
            workers: in the order of their rows.
            send: makes the features of a query available to all workers, and returns the value to pass to them.
        """
        bounds = pairwise(accumulate(map(len, workers), initial=0))
        assigned = [Assignment(range(*rows), worker) for rows, worker in zip(bounds, workers, strict=True)]
        self._shards = ReachableShards(map_size, assigned, send)

    def steps(
        self, query: Features, plan: Plan, selection: Array | None = None, own_row: int | None = None
    ) -> Generator[Coverage | Ranked | Scored | Reranked, None, None]:
        """Run a search step by step, see `steps_in`.

        Each attempt starts with a `Coverage`. Callers must discard the steps of earlier attempts.

        Raises:
            ShardsLostError: no worker answers.
        """
        every = self._shards.assigned
        while True:
            here = [one for one in every if one.worker.is_here()]
            if every and not here:
                raise ShardsLostError("no shard worker answers; try again in a minute")
            missing = [one for one in every if one not in here]
            images = sum(len(one.rows if selection is None else one.within(selection)[1]) for one in missing)
            yield Coverage(images, len(missing), len(every))
            try:
                yield from steps_in(replace(self._shards, assigned=here), query, plan, selection, own_row)
            except ShardsLostError:
                continue
            return

    def close(self) -> None:
        """Do nothing; the workers keep running."""


@dataclass(frozen=True)
class ReachableShards:
    """All reachable shards, searched as one collection. See `ShardedSearcher` for the attributes."""

    map_size: Callable[[int], Size]
    assigned: list[Assignment]
    send: Callable[[Features], Any]

    def search(self, descriptor: Array, k: int, selection: Array | None) -> tuple[Ranking, bool]:
        answers = []
        for one in self.assigned:
            local = None if selection is None else one.within(selection)[1]
            answers.append((one.rows.start, one.worker.search(descriptor, k, local)))
        return merged([(start, answer.result()) for start, answer in answers]).first(k), True

    def descriptors(self, rows: Array) -> Array:
        order = np.argsort(rows)
        answers = []
        for one in self.assigned:
            part, local = one.within(rows[order])
            answers.append((order[part], one.worker.descriptors(local)))
        found = np.empty((len(rows), DESCRIPTOR_DIM), np.float32)
        for indices, answer in answers:
            found[indices] = answer.result()
        return found

    def score_batches(
        self, query: Features, rows: Sequence[int], is_needed: Callable[[int], bool], coarse: bool
    ) -> Batches:
        sent = self.send(query)
        running: dict[Future[Array], tuple[Assignment, Iterator[list[int]], list[int]]] = {}

        def start_next(one: Assignment, batches: Iterator[list[int]]) -> None:
            if batch := next(batches, None):
                running[one.score(sent, batch, coarse)] = one, batches, batch

        for one in self.assigned:
            batches = batches_of_equal([row for row in rows if row in one.rows], self.map_size, is_needed)
            for _ in range(AHEAD):
                start_next(one, batches)
        while running:
            for answer in wait(running, return_when=FIRST_COMPLETED).done:
                one, batches, batch = running.pop(answer)
                yield batch, answer.result()
                start_next(one, batches)


def merged(rankings: Sequence[tuple[int, Ranking]]) -> Ranking:
    """Merge the rankings of all shards into one by similarity; ties are ordered by row.

    Args:
        rankings: first row and ranking of each shard, by ascending first row.
    """
    similarities = [ranking.similarities for _, ranking in rankings]
    rows = [start + ranking.rows for start, ranking in rankings]
    return Ranking.by_similarity(
        np.concatenate([np.empty(0, np.float32), *similarities]), np.concatenate([np.empty(0, np.int64), *rows])
    )
