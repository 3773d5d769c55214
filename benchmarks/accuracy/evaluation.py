"""Evaluation of a model on a data set by the protocol of Revisited Oxford/Paris: mAP before and after reranking.

`evaluate_query` is the protocol. The work of each query is written to a journal as soon as it is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cvnet_engine.benchmarks.accuracy.dataset import Dataset
from cvnet_engine.benchmarks.accuracy.journal import Facts, Journal, content, digest, query_facts
from cvnet_engine.benchmarks.accuracy.protocol import SETUPS, QueryResult, ignored, judge, summarise
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.geometry import Size
from cvnet_engine.engine.images import Box, read_size
from cvnet_engine.engine.retrieval.engines import Collection, Engines
from cvnet_engine.engine.retrieval.pooling import pooled, with_pooled_maps
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.search import similarities
from cvnet_engine.engine.retrieval.searcher import Plan, RerankWith, Stages
from cvnet_engine.engine.retrieval.superglobal import rerank

GLOBAL = 0  # shortlist length that means no reranking

Case = tuple[int, str]  # shortlist length and setup


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
class Task:
    """The data set and the settings of an evaluation.

    Attributes:
        shortlists: shortlist lengths, ascending.
        method: reranking method.
        rerank_full: candidates per shortlist to score at full resolution; see `Plan`.
    """

    dataset: Dataset
    shortlists: tuple[int, ...]
    method: RerankWith = "cvnet"
    rerank_full: int | None = None

    @property
    def queries(self) -> range:
        """Query numbers."""
        return range(len(self.dataset.queries))

    def plan(self, shortlist: int) -> Plan:
        return Plan(rerank=shortlist, method=self.method, rerank_full=self.rerank_full)


def evaluate(
    task: Task,
    collection: Collection,
    engines: Callable[[], Engines],
    entries: QueryEntries | None = None,
    done: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate every query, computing only what the journal lacks.

    Args:
        collection: its rows are those of the data set.
        engines: called only if something has to be computed.
        entries: the queries' journal entries; by default nothing is kept.
        done: called after each query.
    """
    evaluations, descriptors = [], collection.descriptors[:]
    for number in task.queries:
        before = entries.get(number) if entries else None
        query = Query(task, number, collection, before, engines)
        evaluations.append(evaluate_query(query, descriptors))
        if entries and query.is_changed:
            entries.put(number, query.work)
        done()
    return Evaluation(task.shortlists, tuple(evaluations))


def evaluate_query(query: Query, descriptors: Array) -> QueryEvaluation:
    """Rank the database for a query, rerank it for every shortlist length and setup, and judge every ranking.

    Args:
        descriptors: (n, 2048) float32 of the database.
    """
    task, truth = query.task, query.task.dataset.ground_truth[query.number]
    ranking = Ranking.by_similarity(similarities(descriptors, query.descriptor))
    rankings = {(GLOBAL, setup): ranking.without(ignored(truth, setup)) for setup in SETUPS}
    for k in reversed(task.shortlists):  # the longest first: its pair scores serve the others
        plan = task.plan(k)
        # As published, SuperGlobal refines one list for all setups, which includes the images that a setup ignores.
        how = plan.refinement
        refined = rerank(query.descriptor, ranking, descriptors, how) if how else ranking
        for setup in SETUPS:
            candidates = refined.without(ignored(truth, setup))  # each setup has its own shortlist
            rankings[k, setup] = reranked(candidates, plan, query.coarse_scores, query.pair_scores)
    return QueryEvaluation(
        ranking,
        scored(rankings.values(), "pair_scores"),
        scored(rankings.values(), "coarse_scores"),
        rankings,
        {case: judge(ranked.rows, truth, case[1]) for case, ranked in rankings.items()},
        query.work.seconds,
    )


def reranked(
    candidates: Ranking, plan: Plan, coarse_scores: Callable[[Array], Array], pair_scores: Callable[[Array], Array]
) -> Ranking:
    """Rerank candidates as `steps_in` does, without early stopping, because mAP needs the whole ranking.

    Args:
        coarse_scores, pair_scores: return the scores (n,) float32 of rows (n,), at coarse and at full resolution.
    """
    if coarse := plan.coarse_pairs(len(candidates.rows)):
        candidates = candidates.coarsely_reranked(coarse_scores(candidates.rows[:coarse]))
    return candidates.reranked(pair_scores(candidates.rows[: plan.full_pairs]))


def scored(rankings: Iterable[Ranking], column: str) -> dict[int, float]:
    """Return all scores in a column of the rankings, by row."""
    found: dict[int, float] = {}
    for ranking in rankings:
        scores = getattr(ranking, column)
        known = ~np.isnan(scores)
        found |= zip(ranking.rows[known].tolist(), scores[known].tolist(), strict=True)
    return dict(sorted(found.items()))


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

        return cls(arrays["descriptor"], scores(""), scores("pooled_"), float(arrays["seconds"]))

    def pack(self) -> dict[str, Array]:
        arrays = {"descriptor": self.descriptor, "seconds": np.array(self.seconds)}
        for prefix, scores in (("", self.pair_scores), ("pooled_", self.coarse_scores)):
            arrays[f"{prefix}rows"] = np.array(sorted(scores), np.int64)
            arrays[f"{prefix}scores"] = np.array([scores[row] for row in sorted(scores)], np.float32)
        return arrays


class MissingWorkError(Exception):
    """A query's work is not complete, and there is no model to complete it."""


class Query:
    """A query of a task. Its descriptor and pair scores are computed when they are first needed."""

    def __init__(
        self,
        task: Task,
        number: int,
        collection: Collection,
        work: QueryWork | None,
        engines: Callable[[], Engines] | None,
    ) -> None:
        """
        Args:
            work: results of earlier runs.
            engines: opens the model, if something is missing; None raises `MissingWorkError` then.
        """
        self.task, self.number = task, number
        self._collection, self._open, self._stages = collection, engines, Stages()
        self._before = work
        self._pair_scores = dict(work.pair_scores) if work else {}
        self._coarse_scores = dict(work.coarse_scores) if work else {}

    @property
    def work(self) -> QueryWork:
        """Everything known of the query so far."""
        seconds = (self._before.seconds if self._before else 0.0) + sum(self._stages.seconds.values())
        return QueryWork(self.descriptor, self._pair_scores, self._coarse_scores, seconds)

    @property
    def is_changed(self) -> bool:
        """True if something was computed."""
        return bool(self._stages.seconds)

    @property
    def descriptor(self) -> Array:
        """(2048,) float32, unit norm."""
        return self._before.descriptor if self._before else self._features.descriptor

    def pair_scores(self, rows: Array) -> Array:
        """Return the pair scores (n,) float32 of database rows (n,) at full resolution."""
        return self._known_or_computed(self._pair_scores, rows, coarse=False)

    def coarse_scores(self, rows: Array) -> Array:
        """Return the pair scores (n,) float32 of database rows (n,) at coarse resolution."""
        return self._known_or_computed(self._coarse_scores, rows, coarse=True)

    def _known_or_computed(self, known: dict[int, float], rows: Array, coarse: bool) -> Array:
        missing = [row for row in rows.tolist() if row not in known]
        if missing:
            features, collection = self._features, self._collection
            with self._stages.timed("pairs"):
                if coarse:
                    scores = self._engines.score_rows(pooled(features), with_pooled_maps(collection), missing)
                else:
                    scores = self._engines.score_rows(features, collection, missing)
            known |= zip(missing, scores.tolist(), strict=True)
        return np.array([known[row] for row in rows.tolist()], np.float32)

    @cached_property
    def _features(self) -> Features:
        path = self.task.dataset.queries[self.number]
        engines = self._engines
        with self._stages.timed("features"):
            return extract_query(engines, path, self.task.dataset.ground_truth[self.number].bbx)

    @property
    def _engines(self) -> Engines:
        if self._open is None:
            raise MissingWorkError
        return self._open()


@dataclass(frozen=True)
class QueryEntries:
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
        dataset, rerank_full, identity = self.task.dataset, self.task.rerank_full, self.identity
        if rerank_full is not None:  # separate entries, because the recorded seconds differ too
            identity = f"{identity} fine {rerank_full}"
        return query_facts(identity, dataset.queries[number], dataset.ground_truth[number].bbx, self._database)

    @cached_property
    def _database(self) -> str:
        return database_digest(self.task.dataset)


def database_digest(dataset: Dataset) -> str:
    """Return a digest of the database images, in their order."""
    return digest(tuple(content(path) for path in dataset.images))


def extract_query(engines: Engines, path: Path, bbx: Sequence[float] | None) -> Features:
    """Extract a query image, cropped to its box if it has one."""
    return engines.extract_from(path, within(read_size(path), bbx) if bbx else None)


def within(size: Size, bbx: Sequence[float]) -> Box:
    """Clip a box (x1, y1, x2, y2) to the right and bottom edges of an image, as the published loader does."""
    height, width = size
    x1, y1, x2, y2 = bbx
    return x1, y1, min(x2, width), min(y2, height)
