"""Approximate global search: candidates by an inverted file, put in order by exact search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.retrieval.inverted_file import Scanner

DEPTH = 100  # results that recall is measured at


@dataclass(frozen=True)
class Effort:
    """How much of an inverted file a query looks at: lists, and the candidates that exact search puts in order."""

    probes: int
    candidates: int


@dataclass(frozen=True)
class Approximate:
    """What proposes rows of a collection for exact search.

    Attributes:
        rows: (n,) int64, the row of each descriptor of the inverted file; -1 where the collection has it no longer.
        unknown: (m,) int64, ascending: rows that the inverted file does not have, all of which are looked at.
    """

    scanner: Scanner
    rows: Array
    unknown: Array
    effort: Effort

    def reaches(self, k: int) -> bool:
        """Whether recall is known of so many results, and of one more: the query itself, where it is of the gallery."""
        return k <= DEPTH + 1

    def propose(self, query: Array) -> Array:
        """Rows (c,) int64, ascending, among which the most similar ones to a query (2048,) float32 are to be found."""
        rows = self.rows[self.scanner.nearest(query, self.effort.probes, self.effort.candidates)]
        return np.sort(np.concatenate([rows[rows >= 0], self.unknown]))
