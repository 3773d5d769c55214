"""Evaluation of a model on a data set: mAP of the global ranking and of each reranked one, in the setups E, M and H.

For pair scores, each setup has its own shortlist, taken after its ignored images are removed; a pair that occurs in
several shortlists is scored once. SuperGlobal refines one list for all setups. The work of each query is written to a
journal as soon as it is complete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cvnet_engine.benchmarks.accuracy.dataset import Dataset, GroundTruth
from cvnet_engine.benchmarks.accuracy.journal import Facts, Journal, content, digest, query_facts
from cvnet_engine.benchmarks.accuracy.protocol import SETUPS, QueryResult, ignored, judge, summarise
from cvnet_engine.benchmarks.accuracy.shortlists import Case, Shortlists
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.images import Box, load, naming
from cvnet_engine.engine.retrieval.engines import Collection, Engines, Mapped
from cvnet_engine.engine.retrieval.pooling import pooled, with_pooled_maps
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.search import similarities
from cvnet_engine.engine.retrieval.searcher import Plan, RerankWith

GLOBAL = 0  # shortlist length that means no reranking


@dataclass(frozen=True)
class QueryWork:
    """Computed part of a query, from which its rankings and results follow.

    Attributes:
        descriptor: (2048,) float32, unit norm.
        pair_scores: database row -> pair score at full resolution.
        coarse_scores: database row -> pair score at coarse resolution.
        seconds: total computing time, including that of interrupted runs.
    """

    descriptor: Array
    pair_scores: dict[int, float]
    coarse_scores: dict[int, float]
    seconds: float

    @classmethod
    def unpack(cls, arrays: dict[str, Array]) -> QueryWork:
        def scores(prefix: str) -> dict[int, float]:
            return dict(zip(arrays[f"{prefix}rows"].tolist(), arrays[f"{prefix}scores"].tolist(), strict=True))

        pooled = scores("pooled_") if "pooled_rows" in arrays else {}
        return cls(arrays["descriptor"], scores(""), pooled, float(arrays["seconds"]))

    def pack(self) -> dict[str, Array]:
        arrays = {"descriptor": self.descriptor, "seconds": np.array(self.seconds)}
        for prefix, scores in (("", self.pair_scores), ("pooled_", self.coarse_scores)):
            arrays[f"{prefix}rows"] = np.array(list(scores), np.int64)
            arrays[f"{prefix}scores"] = np.array(list(scores.values()), np.float32)
        return arrays


@dataclass(frozen=True)
class QueryEvaluation:
    """Rankings and results of one query.

    Attributes:
        ranking: the whole database by global similarity.
        pair_scores: database row -> pair score at full resolution, for every row that was scored.
        coarse_scores: database row -> pair score at coarse resolution, for shortlists longer than `rerank_full`.
        rankings: (shortlist length, setup) -> ranking without ignored images.
        results: (shortlist length, setup) -> result, None if the query has no relevant image in this setup.
        seconds: time of extraction and pair scores.
    """

    ranking: Ranking
    pair_scores: dict[int, float]
    coarse_scores: dict[int, float]
    rankings: dict[Case, Ranking]
    results: dict[Case, QueryResult | None]
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of a data set, with reranking at each length in `shortlists`."""

    shortlists: tuple[int, ...]
    queries: tuple[QueryEvaluation, ...]

    def means(self, shortlist: int, setup: str) -> dict[str, float]:
        """Return mAP and mP@1,5,10; pass `GLOBAL` for the ranking without reranking."""
        return summarise([query.results[shortlist, setup] for query in self.queries])

    @property
    def pairs(self) -> int:
        """Number of pairs scored at full resolution."""
        return sum(len(query.pair_scores) for query in self.queries)

    @property
    def pooled_pairs(self) -> int:
        """Number of pairs scored at coarse resolution."""
        return sum(len(query.coarse_scores) for query in self.queries)

    @property
    def seconds(self) -> float:
        """Total computing time of all queries, including that of interrupted runs."""
        return sum(query.seconds for query in self.queries)

    def to_json(self) -> dict[str, Any]:
        """Return the tables: `{"global": {"E": {"mAP": …}}, "rerank": {"20": {"E": …}}}`."""
        return {
            "global": {setup: self.means(GLOBAL, setup) for setup in SETUPS},
            "rerank": {str(k): {setup: self.means(k, setup) for setup in SETUPS} for k in self.shortlists},
            "pairs": self.pairs,
            "pooled_pairs": self.pooled_pairs,
        }


Timed = tuple[Evaluation, dict[str, float]]  # with the seconds of each stage; `index` covers `indexed` images


@dataclass(frozen=True)
class Selected:
    """Rows of another set of images, renumbered."""

    whole: Mapped
    rows: Array  # (n,) int64

    def map_size(self, row: int) -> tuple[int, int]:
        return self.whole.map_size(int(self.rows[row]))

    def features(self, row: int) -> Features:
        return self.whole.features(int(self.rows[row]))


@dataclass(frozen=True)
class Selection(Selected):
    """Selected rows of a larger collection, usable as a collection."""

    whole: Collection

    @classmethod
    def of_gallery(cls, gallery: Gallery, paths: Sequence[Path]) -> Selection:
        """Select the images at `paths`, in that order; all of them must be in the gallery."""
        row_of = {path: row for row, path in enumerate(gallery.paths)}
        return cls(gallery, np.array([row_of[path.absolute()] for path in paths], np.int64))

    @property
    def descriptors(self) -> Array:
        return self.whole.descriptors[self.rows]

    def pooled(self) -> Selected:
        return Selected(with_pooled_maps(self.whole), self.rows)


@dataclass(frozen=True)
class Task:
    """The data set and the settings of an evaluation.

    Attributes:
        shortlists: shortlist lengths, ascending.
        cropped: crop queries to their boxes, as published.
        method: reranking method.
        rerank_full: candidates per shortlist to score at full resolution; see `Plan`.
    """

    dataset: Dataset
    shortlists: tuple[int, ...]
    cropped: bool = True
    method: RerankWith = "cvnet"
    rerank_full: int | None = None

    @property
    def queries(self) -> range:
        """Query numbers."""
        return range(len(self.dataset.queries))

    def box(self, number: int) -> tuple[float, float, float, float] | None:
        """Return the box in pixels that a query is cropped to; None if queries are not cropped."""
        return self.dataset.ground_truth[number].bbx if self.cropped else None

    def plan(self, shortlist: int) -> Plan:
        return Plan(rerank=shortlist, method=self.method, rerank_full=self.rerank_full)


class Query:
    """A query of a task against a database: computes the missing scores and evaluates them.

    Attributes:
        work: what has been computed, possibly in an earlier run; None at first.
    """

    def __init__(
        self, task: Task, number: int, collection: Collection, descriptors: Array, work: QueryWork | None
    ) -> None:
        """
        Args:
            collection: its rows are those of the data set.
            descriptors: (n, 2048) descriptors of the collection.
        """
        self.number, self.work = number, work
        self._task, self._collection, self._descriptors = task, collection, descriptors

    @property
    def is_complete(self) -> bool:
        """True if every pair of every shortlist has been scored."""
        work = self.work
        return (
            work is not None
            and work.coarse_scores.keys() >= set(self._shortlists.rough_rows)
            and work.pair_scores.keys() >= set(self._looked_at.rows)
        )

    def complete(self, engines: Engines, features: Features | None = None) -> QueryWork:
        """Compute the missing scores.

        Args:
            features: features of the query, if already extracted.

        Raises:
            ImageError: the query image cannot be read, or its box lies outside it.
        """
        started = time.perf_counter()
        path, box = self._task.dataset.queries[self.number], self._task.box(self.number)
        extracted = cache(lambda: features or extract_query(engines, path, box))
        self.work = before = self.work or QueryWork(extracted().descriptor, {}, {}, 0.0)
        rough = completed(
            before.coarse_scores,
            self._shortlists.rough_rows,
            lambda rows: engines.score_rows(pooled(extracted()), with_pooled_maps(self._collection), rows),
        )
        self.work = replace(before, coarse_scores=rough)
        full = completed(
            before.pair_scores,
            self._looked_at.rows,
            lambda rows: engines.score_rows(extracted(), self._collection, rows),
        )
        seconds = before.seconds + time.perf_counter() - started
        self.work = QueryWork(before.descriptor, full, rough, seconds)
        return self.work

    def evaluation(self) -> QueryEvaluation:
        """Evaluate the query; its work must be complete."""
        work, truth = self._known, self._truth
        rankings = {(GLOBAL, setup): self._ranking.without(ignored(truth, setup)) for setup in SETUPS}
        rankings |= self._looked_at.reranked(work.pair_scores)
        return QueryEvaluation(
            self._ranking,
            {row: work.pair_scores[row] for row in self._looked_at.rows},
            {row: work.coarse_scores[row] for row in self._shortlists.rough_rows},
            rankings,
            {case: judge(ranked.rows, truth, case[1]) for case, ranked in rankings.items()},
            work.seconds,
        )

    @property
    def _known(self) -> QueryWork:
        assert self.work
        return self.work

    @property
    def _truth(self) -> GroundTruth:
        return self._task.dataset.ground_truth[self.number]

    @cached_property
    def _ranking(self) -> Ranking:
        return Ranking.by_similarity(similarities(self._descriptors, self._known.descriptor))

    @cached_property
    def _shortlists(self) -> Shortlists:
        plans = {k: self._task.plan(k) for k in self._task.shortlists}
        return Shortlists.of(self._ranking, self._known.descriptor, self._descriptors, self._truth, plans)

    @cached_property
    def _looked_at(self) -> Shortlists:
        """The shortlists in the order of the coarse scores, all of which must be known."""
        return self._shortlists.looked_at(self._known.coarse_scores)


@dataclass(frozen=True)
class Finished:
    """Journal entries of a task's queries for one model.

    Attributes:
        identity: identifies everything that the model's results depend on.
    """

    task: Task
    identity: str
    journal: Journal

    def get(self, number: int) -> QueryWork | None:
        """Return what has been computed for a query; None if nothing has."""
        stored = self.journal.get(self._facts(number))
        return QueryWork.unpack(stored) if stored else None

    def put(self, number: int, work: QueryWork) -> None:
        """Store or replace the work; it is on disk when this returns."""
        self.journal.put(self._facts(number), work.pack())

    def _facts(self, number: int) -> Facts:
        path, rerank_full = self.task.dataset.queries[number], self.task.rerank_full
        identity = (
            self.identity if rerank_full is None else f"{self.identity} fine {rerank_full}"
        )  # separate entries, because the recorded seconds differ too
        return query_facts(identity, path, self.task.box(number), self._database)

    @cached_property
    def _database(self) -> str:
        return database_digest(self.task.dataset)


@dataclass(frozen=True)
class Evaluator:
    """Evaluation of a data set; the collection's rows are those of the data set."""

    collection: Collection
    finished: Finished

    @property
    def task(self) -> Task:
        return self.finished.task

    def run(self, engines: Callable[[], Engines], done: Callable[[], None] = lambda: None) -> Evaluation:
        """Evaluate every query, computing only what the journal lacks.

        Args:
            engines: called only if something has to be computed.
            done: called after each query.
        """
        queries = []
        for query in self.queries():
            if not query.is_complete:
                self.finished.put(query.number, query.complete(engines()))
            queries.append(query.evaluation())
            done()
        return Evaluation(tuple(self.task.shortlists), tuple(queries))

    def queries(self) -> Iterator[Query]:
        descriptors = self.collection.descriptors[:]
        for number in self.task.queries:
            yield Query(self.task, number, self.collection, descriptors, self.finished.get(number))


def evaluate(
    dataset: Dataset,
    engines: Engines,
    collection: Collection,
    shortlists: Sequence[int],
    rerank_full: int | None = None,
) -> Evaluation:
    """Evaluate every query without a journal file, as published unless `rerank_full` is given."""
    task = Task(dataset, tuple(shortlists), rerank_full=rerank_full)
    with Journal(None) as journal:
        return Evaluator(collection, Finished(task, "", journal)).run(lambda: engines)


def completed(known: dict[int, float], rows: Sequence[int], score: Callable[[list[int]], Array]) -> dict[int, float]:
    """Return the known scores by row, and the scores of those `rows` that were not known."""
    missing = [row for row in rows if row not in known]
    return known | dict(zip(missing, score(missing).tolist(), strict=True)) if missing else known


def database_digest(dataset: Dataset) -> str:
    """Return a digest of the database images, in their order."""
    return digest(tuple(content(path) for path in dataset.images))


def extract_query(engines: Engines, path: Path, bbx: Sequence[float] | None) -> Features:
    """Extract a query image, cropped to its box if it has one."""
    image = load(path)
    with naming(path):
        return engines.extract(image if bbx is None else load(image, within(image, bbx)))


def within(image: Array, bbx: Sequence[float]) -> Box:
    """Clip a box (x1, y1, x2, y2) to the right and bottom edges of the image, as the published loader does."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = bbx
    return x1, y1, min(x2, width), min(y2, height)
