"""Construction of an approximate index: training, encoding of all descriptors, and choice of the search effort."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.retrieval.blocks import Descriptors
from cvnet_engine.engine.retrieval.inverted_file import DEPTH, Effort, InvertedFile, Quantizer, Scanner
from cvnet_engine.engine.retrieval.search import parts

LEAST = 2000  # minimum number of descriptors; exact search of fewer is already fast
LISTS = 4  # number of lists: this times the square root of the descriptors, rounded down to a power of two
LEARNT_FROM = 40  # training descriptors per list
QUERIES = 200
CANDIDATES = tuple(round(DEPTH * 2 ** (step / 4)) for step in range(2, 33))  # 141 to 25,600
ERRORS = 2  # measured recall must exceed the requested one by this many standard errors (about 97.5 % confidence)
CANDIDATE_BYTES = 4096  # read per candidate: its descriptor in float16


@dataclass(frozen=True)
class Trial:
    """Measurement of one effort: recall@100 per query (q,), and the bytes that a search reads."""

    effort: Effort
    recalls: Array
    read_bytes: float

    @property
    def recall(self) -> float:
        return float(self.recalls.mean())

    @property
    def error(self) -> float:
        """Standard error of `recall`."""
        return float(self.recalls.std(ddof=1) / len(self.recalls) ** 0.5)


@dataclass(frozen=True)
class Built:
    """An inverted file and the trial of the chosen effort."""

    file: InvertedFile
    trial: Trial


def build(descriptors: Descriptors, wanted: float, done: Callable[[int], None] = lambda _: None) -> Built:
    """Build an approximate index of a collection, and choose the least effort whose recall@100 is at least `wanted`.

    Recall is the fraction of the exact top 100 that is found. It is measured with random descriptors of the collection
    that are not used for training, each excluded from its own results. Queries unlike the collection may have a lower
    recall.

    Args:
        done: called as `done(n)` when n more descriptors have been encoded.

    Raises:
        GalleryError: too few descriptors, a damaged descriptor, or no effort that reads less than exact search reaches
            the recall.
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
    """Yield all descriptors in order, in arrays (m, 2048) float32."""
    for part in parts(len(descriptors)):
        yield descriptors[part]
        descriptors.release()


def coded_part(quantizer: Quantizer, rows: Array, best: Best, done: Callable[[int], None]) -> tuple[Array, Array]:
    """Return lists and codes of descriptors; also updates `best`, so that descriptors are read only once."""
    best.look_at(rows)
    coded = quantizer.encode(rows)
    done(len(rows))
    return coded


class Best:
    """The exact top `DEPTH` of each query, updated part by part.

    Attributes:
        rows: (q, DEPTH) int64, unsorted.
    """

    def __init__(self, queries: Array, own: Array) -> None:
        """
        Args:
            queries: (q, 2048) float32.
            own: (q,) rows of the queries, excluded from their results.
        """
        self._queries, self._own = queries, own
        self._seen = 0
        self.rows = np.full((len(queries), DEPTH), -1)
        self._similarities = np.full((len(queries), DEPTH), -np.inf, np.float32)

    def look_at(self, rows: Array) -> None:
        """Update the results with the next descriptors (m, 2048)."""
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
    """Measure all combinations of probes and candidates.

    Args:
        asked: (q, 2048) descriptors of the queries.
        queries: (q,) rows of the queries.
        expected: (q, DEPTH) exact results.
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
    """Return the trial that reads the fewest bytes with a recall at least `ERRORS` standard errors above `wanted`.

    Raises:
        GalleryError: no trial reaches this recall.
    """
    reaching = [trial for trial in trials if trial.recall - ERRORS * trial.error >= wanted]
    if not reaching:
        most = max(trials, key=lambda trial: trial.recall)
        raise GalleryError(
            f"recall@{DEPTH} of {wanted} is not reached: at most {most.recall:.4f} ± {most.error:.4f}, with "
            f"{most.effort.candidates:,} candidates; ask for less with --recall, or stay with exact search"
        )
    return min(reaching, key=lambda trial: trial.read_bytes)
