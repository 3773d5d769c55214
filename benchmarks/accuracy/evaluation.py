"""Evaluating a model on a data set: mAP of the global ranking and of each reranked one, in E, M and H.

When pairs are scored, the shortlist is counted separately for each setup after its ignored images are taken out, and
each setup is reranked on its own; a pair that several shortlists share is scored once. SuperGlobal refines one list for
all setups. What a query took to compute goes to a journal as soon as it is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.dataset import Dataset, GroundTruth
from benchmarks.accuracy.journal import Journal, content, digest, query_facts
from benchmarks.accuracy.protocol import SETUPS, QueryResult, ignored, judge, summarise
from engine.contract import Array
from engine.errors import ImageError
from engine.features import Features
from engine.gallery.reader import Gallery
from engine.images import crop, read
from engine.retrieval.ranking import Ranking
from engine.retrieval.retriever import Collection, Retriever
from engine.retrieval.search import similarities
from engine.retrieval.searcher import Plan, RerankWith
from engine.retrieval.superglobal import Refinement, rerank

GLOBAL = 0  # the shortlist length that stands for no reranking
Case = tuple[int, str]  # shortlist length and setup


@dataclass(frozen=True)
class QueryWork:
    """What has to be computed for a query; its rankings and results follow from it.

    Attributes:
        descriptor: (2048,) float32, unit norm.
        pair_scores: database row -> pair score.
        seconds: what it took, whenever that was.
    """

    descriptor: Array
    pair_scores: dict[int, float]
    seconds: float

    @classmethod
    def unpack(cls, arrays: dict[str, Array]) -> QueryWork:
        scores = zip(arrays["rows"].tolist(), arrays["scores"].tolist(), strict=True)
        return cls(arrays["descriptor"], dict(scores), float(arrays["seconds"]))

    def pack(self) -> dict[str, Array]:
        rows = np.array(list(self.pair_scores), np.int64)
        scores = np.array(list(self.pair_scores.values()), np.float32)
        return {"descriptor": self.descriptor, "rows": rows, "scores": scores, "seconds": np.array(self.seconds)}


@dataclass(frozen=True)
class QueryEvaluation:
    """One query, ranked and judged.

    Attributes:
        ranking: the whole database by global similarity.
        pair_scores: database row -> pair score, for every row of a shortlist.
        rankings: (shortlist length, setup) -> the ranking that was judged, ignored images left out.
        results: the same keys -> its result, None where the setup has no relevant image.
        seconds: what extracting it and scoring its pairs took.
    """

    ranking: Ranking
    pair_scores: dict[int, float]
    rankings: dict[Case, Ranking]
    results: dict[Case, QueryResult | None]
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """A data set evaluated, query by query, with reranking at each of `shortlists` (their lengths)."""

    shortlists: tuple[int, ...]
    queries: tuple[QueryEvaluation, ...]

    def means(self, shortlist: int, setup: str) -> dict[str, float]:
        """mAP and mP@1,5,10; `GLOBAL` for the ranking without reranking."""
        return summarise([query.results[shortlist, setup] for query in self.queries])

    @property
    def pairs(self) -> int:
        """How many pairs were scored."""
        return sum(len(query.pair_scores) for query in self.queries)

    @property
    def seconds(self) -> float:
        """What all queries took, whenever that was."""
        return sum(query.seconds for query in self.queries)

    def to_json(self) -> dict[str, Any]:
        """The tables: `{"global": {"E": {"mAP": …}}, "rerank": {"20": {"E": …}}}`."""
        return {
            "global": {setup: self.means(GLOBAL, setup) for setup in SETUPS},
            "rerank": {str(k): {setup: self.means(k, setup) for setup in SETUPS} for k in self.shortlists},
            "pairs": self.pairs,
        }


Timed = tuple[Evaluation, dict[str, float]]  # and the seconds of each stage, `index` being those of `indexed` images


@dataclass(frozen=True)
class Selection:
    """Rows of a larger collection, as a collection of their own."""

    whole: Collection
    rows: Array  # (n,) int64

    @classmethod
    def of_gallery(cls, gallery: Gallery, paths: Sequence[Path]) -> Selection:
        """The images at `paths`, in that order, all of which must be in the gallery."""
        row_of = {path: row for row, path in enumerate(gallery.paths)}
        return cls(gallery, np.array([row_of[path.absolute()] for path in paths], np.int64))

    @property
    def descriptors(self) -> Array:
        return self.whole.descriptors[self.rows]

    def map_size(self, row: int) -> tuple[int, int]:
        return self.whole.map_size(int(self.rows[row]))

    def features(self, row: int) -> Features:
        return self.whole.features(int(self.rows[row]))


@dataclass(frozen=True)
class Evaluator:
    """A data set about to be evaluated.

    Attributes:
        identity: what the retriever's results depend on.
        collection: its rows are the data set's.
        shortlists: their lengths, in ascending order.
        cropped: queries are cropped to their boxes, as published.
        method: what shortlists are reranked with.
    """

    dataset: Dataset
    retriever: Retriever
    identity: str
    collection: Collection
    shortlists: Sequence[int]
    cropped: bool
    journal: Journal
    method: RerankWith = "cvnet"

    def run(self, done: Callable[[], None] = lambda: None) -> Evaluation:
        """Rank and judge every query; `done` is called after each."""
        queries = []
        for path, truth in zip(self.dataset.queries, self.dataset.ground_truth, strict=True):
            queries.append(self.query(path, truth))
            done()
        return Evaluation(tuple(self.shortlists), tuple(queries))

    def query(self, path: Path, truth: GroundTruth) -> QueryEvaluation:
        """A query judged by the journal's entry of it, which is completed where pairs of its shortlists are missing."""
        bbx = truth.bbx if self.cropped else None
        facts = query_facts(self.identity, path, bbx, self.database)
        features = cache(partial(extract_query, self.retriever, path, bbx))
        stored = self.journal.get(facts)
        started = time.perf_counter()
        work = QueryWork.unpack(stored) if stored else QueryWork(features().descriptor, {}, 0.0)
        ranking = Ranking.by_similarity(similarities(self.descriptors, work.descriptor))
        candidates = self.candidates(ranking, work.descriptor, truth)
        rows = shortlisted(candidates, self.method)
        missing = [row for row in rows if row not in work.pair_scores]
        if missing or not stored:
            scores = self.retriever.score_rows(features(), self.collection, missing)
            pair_scores = work.pair_scores | dict(zip(missing, scores.tolist(), strict=True))
            work = QueryWork(work.descriptor, pair_scores, work.seconds + time.perf_counter() - started)
            self.journal.put(facts, work.pack())
        pair_scores = {row: work.pair_scores[row] for row in rows}
        return evaluate_query(ranking, truth, candidates, pair_scores, work.seconds)

    def candidates(self, ranking: Ranking, query: Array, truth: GroundTruth) -> dict[Case, Ranking]:
        """What each shortlist length and setup reranks: the whole ranking, refined where SuperGlobal takes part.

        As published, a list is refined once for all setups, before their ignored images leave it; pairs are scored on a
        shortlist of each setup's own.
        """

        @cache
        def refined(how: Refinement | None) -> Ranking:
            return rerank(query, ranking, self.descriptors, how) if how else ranking

        lists = {k: refined(Plan(rerank=k, method=self.method).refinement) for k in self.shortlists}
        return {(k, setup): listed.without(ignored(truth, setup)) for k, listed in lists.items() for setup in SETUPS}

    @cached_property
    def descriptors(self) -> Array:
        return self.collection.descriptors[:]  # (n, 2048)

    @cached_property
    def database(self) -> str:
        return database_digest(self.dataset)


def database_digest(dataset: Dataset) -> str:
    """A digest of the database's images, in their order."""
    return digest(tuple(content(path) for path in dataset.images))


def evaluate(dataset: Dataset, retriever: Retriever, collection: Collection, shortlists: Sequence[int]) -> Evaluation:
    """Rank and judge every query as published, keeping nothing."""
    with Journal(None) as journal:
        return Evaluator(dataset, retriever, "", collection, shortlists, cropped=True, journal=journal).run()


def shortlisted(candidates: Mapping[Case, Ranking], method: RerankWith) -> list[int]:
    """Rows whose pairs are scored for a shortlist of any length and setup, ascending."""
    pairs = {k: Plan(rerank=k, method=method).pairs for k, _ in candidates}
    return sorted({row for (k, _), ranking in candidates.items() for row in ranking.rows[: pairs[k]].tolist()})


def evaluate_query(
    ranking: Ranking,
    truth: GroundTruth,
    candidates: Mapping[Case, Ranking],
    pair_scores: dict[int, float],
    seconds: float,
) -> QueryEvaluation:
    """Judge a query's global ranking, and each list of candidates, reranked by their pair scores where these are."""
    rankings = {(GLOBAL, setup): ranking.without(ignored(truth, setup)) for setup in SETUPS}
    for (k, setup), listed in candidates.items():
        scores = [pair_scores[row] for row in listed.rows[:k].tolist()] if pair_scores else []
        rankings[k, setup] = listed.reranked(np.array(scores, np.float32))
    results = {case: judge(ranked.rows, truth, case[1]) for case, ranked in rankings.items()}
    return QueryEvaluation(ranking, pair_scores, rankings, results, seconds)


def extract_query(retriever: Retriever, path: Path, bbx: Sequence[float] | None) -> Features:
    """Features of a query image, cropped to its box as the published loader slices it: what lies outside is cut off."""
    image = read(path)
    height, width = image.shape[:2]
    try:
        if bbx is not None:
            x1, y1, x2, y2 = bbx
            image = crop(image, (x1, y1, min(x2, width), min(y2, height)))
        return retriever.extract(image)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
