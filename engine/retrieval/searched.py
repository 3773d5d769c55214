"""What a query is searched in: a collection laid out for search, with the engines that score pairs of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from engine.contract import Array, Closing
from engine.features import Features
from engine.retrieval.pooling import Pooled
from engine.retrieval.ranking import Ranking
from engine.retrieval.retriever import Collection, Retriever
from engine.retrieval.search import DescriptorIndex

Batches = Generator[tuple[list[int], Array], None, None]  # rows and their pair scores (n,) float32, step by step


class Searched(Protocol):
    """Images numbered through, wherever they are."""

    def search(self, descriptor: Array, k: int, among: Array | None) -> Ranking:
        """The `k` images most similar to a descriptor (2048,) float32, as `DescriptorIndex.search` ranks them."""

    def descriptors(self, rows: Array) -> Array:
        """(n, 2048) float32 of rows (n,) int64."""

    def score_batches(
        self, query: Features, rows: Sequence[int], is_open: Callable[[int], bool], rough: bool
    ) -> Batches:
        """Pair scores of a query and rows, see `Retriever.score_batches`; `rough` on pooled maps, as the query's."""


class Here(Closing):
    """A collection searched by this process. Neither it nor the retriever is closed with this."""

    def __init__(self, retriever: Retriever, collection: Collection) -> None:
        self._retriever, self._collection = retriever, collection
        self._descriptors = collection.descriptors
        self._index = DescriptorIndex(self._descriptors)

    def search(self, descriptor: Array, k: int, among: Array | None) -> Ranking:
        return self._index.search(descriptor, k, among)

    def descriptors(self, rows: Array) -> Array:
        return self._descriptors[rows]

    def score_batches(
        self, query: Features, rows: Sequence[int], is_open: Callable[[int], bool], rough: bool
    ) -> Batches:
        collection = Pooled(self._collection) if rough else self._collection
        return self._retriever.score_batches(query, collection, rows, is_open)

    def close(self) -> None:
        self._index.close()
