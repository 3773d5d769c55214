"""What a query is searched in: a collection laid out for search, with the engines that score pairs of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from cvnet_engine.engine.contract import Array, Closing
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.retrieval.approximate import Approximate
from cvnet_engine.engine.retrieval.pooling import with_pooled_maps
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.retriever import Collection, Retriever
from cvnet_engine.engine.retrieval.search import DescriptorIndex

Batches = Generator[tuple[list[int], Array], None, None]  # rows and their pair scores (n,) float32, step by step


class Searched(Protocol):
    """Images numbered through, wherever they are."""

    def search(self, descriptor: Array, k: int, among: Array | None) -> tuple[Ranking, bool]:
        """The `k` images most similar to a descriptor (2048,) float32, as `DescriptorIndex.search` ranks them.

        And whether all were looked at, or only candidates of an approximate index.
        """

    def descriptors(self, rows: Array) -> Array:
        """(n, 2048) float32 of rows (n,) int64."""

    def score_batches(
        self, query: Features, rows: Sequence[int], is_open: Callable[[int], bool], rough: bool
    ) -> Batches:
        """Pair scores of a query and rows, see `Retriever.score_batches`; `rough` on pooled maps, as the query's."""


class Here(Closing):
    """A collection searched by this process. Neither it nor the retriever is closed with this."""

    def __init__(self, retriever: Retriever, collection: Collection, approximate: Approximate | None = None) -> None:
        self._retriever, self._collection, self._approximate = retriever, collection, approximate
        self._descriptors = collection.descriptors
        self._index = DescriptorIndex(self._descriptors)

    def search(self, descriptor: Array, k: int, among: Array | None) -> tuple[Ranking, bool]:
        proposed = self._proposed(descriptor, k) if among is None else None
        return self._index.search(descriptor, k, among if proposed is None else proposed), proposed is None

    def _proposed(self, descriptor: Array, depth: int) -> Array | None:
        """Candidates (c,) int64 for the best `depth`, ascending; None where all are to be searched."""
        if self._approximate is None or not self._approximate.reaches(depth):
            return None
        proposed = self._approximate.propose(descriptor)
        return proposed if len(proposed) >= depth else None

    def descriptors(self, rows: Array) -> Array:
        return self._descriptors[rows]

    def score_batches(
        self, query: Features, rows: Sequence[int], is_open: Callable[[int], bool], rough: bool
    ) -> Batches:
        collection = with_pooled_maps(self._collection) if rough else self._collection
        return self._retriever.score_batches(query, collection, rows, is_open)

    def close(self) -> None:
        self._index.close()
