"""Building an approximate index: learning its codes, coding every descriptor, and measuring what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.retrieval.blocks import Descriptors
from cvnet_engine.engine.retrieval.inverted_file import DEPTH, Effort, InvertedFile, Quantizer, Scanner
from cvnet_engine.engine.retrieval.search import parts

LEAST = 2000  # descriptors; fewer are searched exactly in less time than it takes to say so
LISTS = 4  # times the square root of the descriptors, or the power of two below
LEARNT_FROM = 40  # descriptors a list
QUERIES = 200
CANDIDATES = tuple(round(DEPTH * 2 ** (step / 4)) for step in range(2, 33))  # 141 to 25,600, that are tried
ERRORS = 2  # standard errors that a measured recall has to be above the wanted one: 39 in 40 draws of queries
CANDIDATE_BYTES = 4096  # read of each: its descriptor in float16


@dataclass(frozen=True)
class Trial:
    """Recall@100 of queries (q,) at an effort, and the bytes that such a search reads."""

    effort: Effort
    recalls: Array
    read_bytes: float

    @property
    def recall(self) -> float:
        return float(self.recalls.mean())

    @property
    def error(self) -> float:
        """The standard error of that mean."""
        return float(self.recalls.std(ddof=1) / len(self.recalls) ** 0.5)


@dataclass(frozen=True)
class Built:
    """An inverted file, and the trial of the effort that was chosen."""

    file: InvertedFile
    trial: Trial


def build(descriptors: Descriptors, wanted: float, done: Callable[[int], None] = lambda _: None) -> Built:
    """An approximate index of a collection, searched by the least effort whose recall@100 is `wanted`.

    Recall is that of descriptors of the collection, drawn at random and kept from what is learnt, each left out of its
    own results: the share of the exact best 100 that is found. It holds for queries that are like the collection.

    Args:
        done: `done(n)` is called when n more descriptors have been coded.

    Raises:
        GalleryError: too few descriptors, a damaged one, or a recall that is not reached by reading less than exact
            search does.
    """
    count = len(descriptors)
    if count < LEAST:
        raise GalleryError(f"{count:,} images; expected at least {LEAST:,}: fewer are searched exactly in no time")
    drawn = np.random.default_rng(0).permutation(count)
    lists = 1 << int(np.log2(min(LISTS * count**0.5, (count - QUERIES) / LEARNT_FROM)))
    queries, sample = np.sort(drawn[:QUERIES]), np.sort(drawn[QUERIES:][: LEARNT_FROM * lists])
    asked = descriptors[queries]
    quantizer = Quantizer.learn(descriptors[sample], lists)
    descriptors.release()
    best = Best(asked, queries)
    coded = [coded_part(quantizer, rows, best, done) for rows in each_part(descriptors)]
    in_lists, codes = (np.concatenate(arrays) for arrays in zip(*coded, strict=True))
    file = InvertedFile.of(quantizer, in_lists, codes)
    exact_bytes = count * CANDIDATE_BYTES
    trials = [trial for trial in try_out(file, asked, queries, best.rows) if trial.read_bytes < exact_bytes]
    return Built(file, least_effort(trials, wanted))


def each_part(descriptors: Descriptors) -> Iterator[Array]:
    """All descriptors in order, (m, 2048) float32 at a time."""
    for part in parts(len(descriptors)):
        yield descriptors[part]
        descriptors.release()


def coded_part(quantizer: Quantizer, rows: Array, best: Best, done: Callable[[int], None]) -> tuple[Array, Array]:
    """Lists and codes of descriptors, which queries are compared with in passing, while they are at hand."""
    best.look_at(rows)
    coded = quantizer.encode(rows)
    done(len(rows))
    return coded


class Best:
    """The exact best `DEPTH` of each query in a collection that is looked at part by part.

    Attributes:
        rows: (q, DEPTH) int64.
    """

    def __init__(self, queries: Array, own: Array) -> None:
        """
        Args:
            queries: (q, 2048) float32; own: (q,) rows that they are, which are left out.
        """
        self._queries, self._own = queries, own
        self._seen = 0
        self.rows = np.full((len(queries), DEPTH), -1)
        self._similarities = np.full((len(queries), DEPTH), -np.inf, np.float32)

    def look_at(self, rows: Array) -> None:
        """Look at the next descriptors (m, 2048)."""
        found = self._queries @ rows.T  # (q, m)
        numbers = self._seen + np.arange(len(rows))
        found[self._own[:, None] == numbers] = -np.inf
        similarities = np.concatenate([self._similarities, found], axis=1)
        names = np.concatenate([self.rows, np.broadcast_to(numbers, found.shape)], axis=1)
        kept = np.argpartition(similarities, -DEPTH, axis=1)[:, -DEPTH:]
        self._similarities = np.take_along_axis(similarities, kept, axis=1)
        self.rows = np.take_along_axis(names, kept, axis=1)
        self._seen += len(rows)


def try_out(file: InvertedFile, asked: Array, queries: Array, expected: Array) -> Iterator[Trial]:
    """Every effort that comes into question.

    Args:
        asked, queries: descriptors (q, 2048), and the rows that they are.
        expected: (q, DEPTH) rows that should be found.
    """
    scanner = Scanner(file)
    for probes in (1 << n for n in range(scanner.lists.bit_length())):
        found = [scanner.nearest(query, probes, CANDIDATES[-1] + 1) for query in asked]
        hits = [np.isin(rows[rows != own], best) for rows, own, best in zip(found, queries, expected, strict=True)]
        for candidates in CANDIDATES:
            recalls = np.array([hit[:candidates].sum() for hit in hits]) / DEPTH
            scanned = probes / scanner.lists * file.codes.nbytes
            yield Trial(Effort(probes, candidates + 1), recalls, scanned + candidates * CANDIDATE_BYTES)


def least_effort(trials: list[Trial], wanted: float) -> Trial:
    """The trial that reads least of those whose recall is at least `wanted`, by `ERRORS` standard errors.

    Raises:
        GalleryError: none is.
    """
    reaching = [trial for trial in trials if trial.recall - ERRORS * trial.error >= wanted]
    if not reaching:
        most = max(trials, key=lambda trial: trial.recall)
        raise GalleryError(
            f"recall@{DEPTH} of {wanted} is not reached: at most {most.recall:.4f} ± {most.error:.4f}, with "
            f"{most.effort.candidates:,} candidates; ask for less with --recall, or stay with exact search"
        )
    return min(reaching, key=lambda trial: trial.read_bytes)
