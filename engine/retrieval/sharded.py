"""Search of a collection whose shards are spread over several workers, with the same results as in one process.

A worker receives the features of a query and returns rankings and pair scores; feature maps stay with the workers. If
a worker stops answering, a running search restarts without its shards.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Protocol

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import ShardsLostError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.geometry import DESCRIPTOR_DIM, Size
from cvnet_engine.engine.retrieval.engines import batches_of_equal
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.searcher import Batches, CoarselyScored, Plan, Ranked, Reranked, Scored, steps_in

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
class Placed:
    """A worker's shards and their rows in the collection."""

    rows: range
    part: Shards

    def within(self, rows: Array) -> tuple[slice, Array]:
        """Return the slice of `rows` (n,) int64, ascending, that lies in these shards, and its row numbers there."""
        places = slice(*np.searchsorted(rows, (self.rows.start, self.rows.stop)).tolist())
        return places, rows[places] - self.rows.start

    def score(self, sent: Any, rows: list[int], coarse: bool) -> Future[Array]:
        return self.part.score(sent, [row - self.rows.start for row in rows], coarse)


class ShardedSearcher:
    """Search a collection whose shards are searched by several workers, as `Searcher` does in one process."""

    def __init__(
        self,
        map_size: Callable[[int], Size],
        parts: Sequence[Shards],
        send: Callable[[Features], Any] = lambda query: query,
    ) -> None:
        """
        Args:
            map_size: positions of the full-scale map of a row.
            parts: in the order of their rows.
            send: makes the features of a query available to all workers, and returns the value to pass to them.
        """
        bounds = pairwise(accumulate(map(len, parts), initial=0))
        self._parts = [Placed(range(*rows), part) for rows, part in zip(bounds, parts, strict=True)]
        self._map_size, self._send = map_size, send

    def steps(
        self, query: Features, plan: Plan, selection: Array | None = None, own_row: int | None = None
    ) -> Generator[Coverage | Ranked | CoarselyScored | Scored | Reranked, None, None]:
        """Run a search step by step, see `steps_in`.

        Each attempt starts with a `Coverage`. Callers must discard the steps of earlier attempts.

        Raises:
            ShardsLostError: no worker answers.
        """
        while True:
            rest = ReachableShards(
                self._map_size, [placed for placed in self._parts if placed.part.is_here()], self._send
            )
            if self._parts and not rest.parts:
                raise ShardsLostError("no shard worker answers; try again in a minute")
            yield self._coverage(rest, selection)
            try:
                yield from steps_in(rest, query, plan, selection, own_row)
            except ShardsLostError:
                continue
            return

    def _coverage(self, rest: ReachableShards, selection: Array | None) -> Coverage:
        missing = [placed for placed in self._parts if placed not in rest.parts]
        images = sum(len(placed.rows if selection is None else placed.within(selection)[1]) for placed in missing)
        return Coverage(images, len(missing), len(self._parts))

    def close(self) -> None:
        """Do nothing; the workers keep running."""


@dataclass(frozen=True)
class ReachableShards:
    """All reachable shards, searched as one collection."""

    map_size: Callable[[int], Size]
    parts: list[Placed]
    send: Callable[[Features], Any]

    def search(self, descriptor: Array, k: int, selection: Array | None) -> tuple[Ranking, bool]:
        asked = []
        for placed in self.parts:
            local = None if selection is None else placed.within(selection)[1]
            asked.append((placed.rows.start, placed.part.search(descriptor, k, local)))
        return merged([(start, answer.result()) for start, answer in asked]).first(k), True

    def descriptors(self, rows: Array) -> Array:
        order = np.argsort(rows)
        asked = []
        for placed in self.parts:
            places, local = placed.within(rows[order])
            asked.append((order[places], placed.part.descriptors(local)))
        found = np.empty((len(rows), DESCRIPTOR_DIM), np.float32)
        for wanted, answer in asked:
            found[wanted] = answer.result()
        return found

    def score_batches(
        self, query: Features, rows: Sequence[int], is_needed: Callable[[int], bool], coarse: bool
    ) -> Batches:
        sent = self.send(query)
        under_way: dict[Future[Array], tuple[Placed, Iterator[list[int]], list[int]]] = {}

        def ask(placed: Placed, batches: Iterator[list[int]]) -> None:
            if batch := next(batches, None):
                under_way[placed.score(sent, batch, coarse)] = placed, batches, batch

        for placed in self.parts:
            batches = self._open_batches([row for row in rows if row in placed.rows], is_needed)
            for _ in range(AHEAD):
                ask(placed, batches)
        while under_way:
            for answer in wait(under_way, return_when=FIRST_COMPLETED).done:
                placed, batches, batch = under_way.pop(answer)
                yield batch, answer.result()
                ask(placed, batches)

    def _open_batches(self, rows: Sequence[int], is_needed: Callable[[int], bool]) -> Iterator[list[int]]:
        """Yield batches of one map size, without the rows that early stopping skips when a batch is requested."""
        return filter(None, (list(filter(is_needed, batch)) for batch in batches_of_equal(rows, self.map_size)))


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
