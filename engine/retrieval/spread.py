"""A collection whose rows are spread over parts that search and score their own: together they find what one would.

A query's features travel; rankings and scores come back, and maps stay where they are. A part that stops answering is
left out with its rows: a search under way begins anew without it, so what is found is always what the others hold.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Protocol

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import PartLostError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.geometry import DESCRIPTOR_DIM, Size
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.retriever import batches_of_equal
from cvnet_engine.engine.retrieval.searcher import Batches, CoarselyScored, Found, Plan, Ranked, Scored, steps_in

AHEAD = 2  # batches that each part has of a search: it reads the maps of one while it scores the other


class Part(Protocol):
    """Some of a collection's rows, one after the other, numbered from 0; an answer is `PartLostError` if it is lost."""

    def __len__(self) -> int:
        """How many."""

    def is_here(self) -> bool:
        """Whether it answers, as far as is known; False from the moment that it has not until it would again."""

    def search(self, descriptor: Array, k: int, among: Array | None) -> Future[Ranking]:
        """See `Searchable.search`."""

    def descriptors(self, rows: Array) -> Future[Array]:
        """See `Searchable.descriptors`."""

    def score(self, query: Any, rows: list[int], rough: bool) -> Future[Array]:
        """Pair scores (n,) float32 of what was sent of a query, and of rows whose maps have one size."""


@dataclass(frozen=True)
class Coverage:
    """A step before each attempt at a search: of the images asked for, how many are missing, with how many parts."""

    missing_images: int
    missing_parts: int
    parts: int


@dataclass(frozen=True)
class Placed:
    """A part, and the rows of the collection that it has."""

    rows: range
    part: Part

    def within(self, rows: Array) -> tuple[slice, Array]:
        """Which of ascending rows (n,) int64 are of this part, and their numbers there."""
        places = slice(*np.searchsorted(rows, (self.rows.start, self.rows.stop)).tolist())
        return places, rows[places] - self.rows.start

    def score(self, sent: Any, rows: list[int], rough: bool) -> Future[Array]:
        return self.part.score(sent, [row - self.rows.start for row in rows], rough)


class SpreadSearcher:
    """What `Searcher` is for a collection in one place."""

    def __init__(
        self,
        map_size: Callable[[int], Size],
        parts: Sequence[Part],
        send: Callable[[Features], Any] = lambda query: query,
    ) -> None:
        """
        Args:
            map_size: positions of a row's full-scale map.
            parts: in the order of their rows.
            send: makes of a query's features what parts are given, once for all of them.
        """
        bounds = pairwise(accumulate(map(len, parts), initial=0))
        self._parts = [Placed(range(*rows), part) for rows, part in zip(bounds, parts, strict=True)]
        self._map_size, self._send = map_size, send

    def steps(
        self, query: Features, plan: Plan, among: Array | None = None, leave_out: int | None = None
    ) -> Generator[Coverage | Ranked | CoarselyScored | Scored | Found, None, None]:
        """See `steps_in`. Each attempt begins with its coverage; all steps before another one are void.

        Raises:
            PartLostError: no part answers.
        """
        while True:
            rest = Rest(self._map_size, [placed for placed in self._parts if placed.part.is_here()], self._send)
            if self._parts and not rest.parts:
                raise PartLostError("no machine that holds a part of the gallery answers; try again in a minute")
            yield self._coverage(rest, among)
            try:
                yield from steps_in(rest, query, plan, among, leave_out)
            except PartLostError:
                continue
            return

    def _coverage(self, rest: Rest, among: Array | None) -> Coverage:
        missing = [placed for placed in self._parts if placed not in rest.parts]
        images = sum(len(placed.rows if among is None else placed.within(among)[1]) for placed in missing)
        return Coverage(images, len(missing), len(self._parts))

    def close(self) -> None:
        """Nothing is held here."""


@dataclass(frozen=True)
class Rest:
    """The parts that answer, `Searchable` as one."""

    map_size: Callable[[int], Size]
    parts: list[Placed]
    send: Callable[[Features], Any]

    def search(self, descriptor: Array, k: int, among: Array | None) -> tuple[Ranking, bool]:
        asked = []
        for placed in self.parts:
            local = None if among is None else placed.within(among)[1]
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
        self, query: Features, rows: Sequence[int], is_open: Callable[[int], bool], rough: bool
    ) -> Batches:
        sent = self.send(query)
        under_way: dict[Future[Array], tuple[Placed, Iterator[list[int]], list[int]]] = {}

        def ask(placed: Placed, batches: Iterator[list[int]]) -> None:
            if batch := next(batches, None):
                under_way[placed.score(sent, batch, rough)] = placed, batches, batch

        for placed in self.parts:
            batches = self._open_batches([row for row in rows if row in placed.rows], is_open)
            for _ in range(AHEAD):
                ask(placed, batches)
        while under_way:
            for answer in wait(under_way, return_when=FIRST_COMPLETED).done:
                placed, batches, batch = under_way.pop(answer)
                yield batch, answer.result()
                ask(placed, batches)

    def _open_batches(self, rows: Sequence[int], is_open: Callable[[int], bool]) -> Iterator[list[int]]:
        """Batches of one size, each of the rows that are open when it is asked for."""
        return filter(None, (list(filter(is_open, batch)) for batch in batches_of_equal(rows, self.map_size)))


def merged(rankings: Sequence[tuple[int, Ranking]]) -> Ranking:
    """The ranking of all parts from those of each, by similarity, which are given with their first row, in order.

    Equals stand by row, as everywhere: within a ranking they do, and a part's rows come after those of the one before.
    """
    similarities = [ranking.similarities for _, ranking in rankings]
    rows = [start + ranking.rows for start, ranking in rankings]
    return Ranking.by_similarity(
        np.concatenate([np.empty(0, np.float32), *similarities]), np.concatenate([np.empty(0, np.int64), *rows])
    )
