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

MIN_IMAGES = 2000  # exact search of fewer is already fast
LISTS = 4  # number of lists: this times the square root of the descriptors, rounded down to a power of two
TRAINED_PER_LIST = 40  # training descriptors per list
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


def build(descriptors: Descriptors, recall: float, done: Callable[[int], None] = lambda _: None) -> Built:
    """Build an approximate index of a collection, and choose the least effort whose recall@100 is at least `recall`.

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
    if count < MIN_IMAGES:
        raise GalleryError(f"{count:,} images; expected at least {MIN_IMAGES:,}: exact search of fewer is already fast")
    lists = 1 << int(np.log2(min(LISTS * count**0.5, (count - QUERIES) / TRAINED_PER_LIST)))
    drawn = np.random.default_rng(0).permutation(count)
    query_rows, sample = np.sort(drawn[:QUERIES]), np.sort(drawn[QUERIES:][: TRAINED_PER_LIST * lists])
    queries = descriptors[query_rows]
    quantizer = Quantizer.train(descriptors[sample], lists)
    descriptors.release()
    exact, encoded = ExactResults(queries, query_rows), []
    for part in parts(count):
        rows = descriptors[part]  # read once for both
        exact.update(rows)
        encoded.append(quantizer.encode(rows))
        descriptors.release()
        done(len(rows))
    file = InvertedFile.of(quantizer, *(np.concatenate(arrays) for arrays in zip(*encoded, strict=True)))
    trials = try_efforts(file, queries, query_rows, exact.rows)
    affordable = [trial for trial in trials if trial.read_bytes < count * CANDIDATE_BYTES]
    return Built(file, least_effort(affordable, recall))


class ExactResults:
    """The exact top `DEPTH` of each query, updated part by part.

    Attributes:
        rows: (q, DEPTH) int64, unsorted.
    """

    def __init__(self, queries: Array, own_rows: Array) -> None:
        """
        Args:
            queries: (q, 2048) float32.
            own_rows: (q,) rows of the queries, excluded from their results.
        """
        self._queries, self._own_rows = queries, own_rows
        self._seen = 0
        self.rows = np.full((len(queries), DEPTH), -1)
        self._similarities = np.full((len(queries), DEPTH), -np.inf, np.float32)

    def update(self, descriptors: Array) -> None:
        """Update the results with the next descriptors (m, 2048)."""
        found = self._queries @ descriptors.T  # (q, m)
        rows = self._seen + np.arange(len(descriptors))
        found[self._own_rows[:, None] == rows] = -np.inf
        similarities = np.concatenate([self._similarities, found], axis=1)
        candidates = np.concatenate([self.rows, np.broadcast_to(rows, found.shape)], axis=1)
        kept = np.argpartition(similarities, -DEPTH, axis=1)[:, -DEPTH:]
        self._similarities = np.take_along_axis(similarities, kept, axis=1)
        self.rows = np.take_along_axis(candidates, kept, axis=1)
        self._seen += len(descriptors)


def try_efforts(file: InvertedFile, queries: Array, query_rows: Array, expected: Array) -> Iterator[Trial]:
    """Measure all combinations of probes and candidates.

    Args:
        queries: (q, 2048) descriptors.
        query_rows: (q,) their rows.
        expected: (q, DEPTH) their exact results.
    """
    scanner = Scanner(file)
    for probes in (1 << n for n in range(scanner.lists.bit_length())):
        found = [scanner.nearest(query, probes, CANDIDATES[-1] + 1) for query in queries]
        hits = [np.isin(rows[rows != own], best) for rows, own, best in zip(found, query_rows, expected, strict=True)]
        for candidates in CANDIDATES:
            recalls = np.array([hit[:candidates].sum() for hit in hits]) / DEPTH
            scanned_bytes = probes / scanner.lists * file.codes.nbytes
            yield Trial(Effort(probes, candidates + 1), recalls, scanned_bytes + candidates * CANDIDATE_BYTES)


def least_effort(trials: list[Trial], recall: float) -> Trial:
    """Return the trial that reads the fewest bytes with a recall at least `ERRORS` standard errors above `recall`.

    Raises:
        GalleryError: no trial reaches this recall.
    """
    reaching = [trial for trial in trials if trial.recall - ERRORS * trial.error >= recall]
    if not reaching:
        most = max(trials, key=lambda trial: trial.recall)
        raise GalleryError(
            f"recall@{DEPTH} of {recall} is not reached: at most {most.recall:.4f} ± {most.error:.4f}, with "
            f"{most.effort.candidates:,} candidates; give a lower --recall, or keep exact search"
        )
    return min(reaching, key=lambda trial: trial.read_bytes)
