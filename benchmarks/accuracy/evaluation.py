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
from engine.retrieval.pooling import Pooled, pooled
from engine.retrieval.ranking import Ranking
from engine.retrieval.retriever import Collection, Mapped, Retriever
from engine.retrieval.search import similarities
from engine.retrieval.searcher import Plan, RerankWith
from engine.retrieval.superglobal import Refinement, rerank

GLOBAL = 0  # the shortlist length that stands for no reranking
Case = tuple[int, str]  # shortlist length and setup
Scores = Callable[[Sequence[int]], Mapping[int, float]]  # database rows -> score by row, of those at least


@dataclass(frozen=True)
class QueryWork:
    """What has to be computed for a query; its rankings and results follow from it.

    Attributes:
        descriptor: (2048,) float32, unit norm.
        pair_scores: database row -> pair score.
        pooled_scores: database row -> pair score on pooled maps.
        seconds: what it took, whenever that was.
    """

    descriptor: Array
    pair_scores: dict[int, float]
    pooled_scores: dict[int, float]
    seconds: float

    @classmethod
    def unpack(cls, arrays: dict[str, Array]) -> QueryWork:
        def scores(prefix: str) -> dict[int, float]:
            return dict(zip(arrays[f"{prefix}rows"].tolist(), arrays[f"{prefix}scores"].tolist(), strict=True))

        pooled = scores("pooled_") if "pooled_rows" in arrays else {}
        return cls(arrays["descriptor"], scores(""), pooled, float(arrays["seconds"]))

    def pack(self) -> dict[str, Array]:
        arrays = {"descriptor": self.descriptor, "seconds": np.array(self.seconds)}
        for prefix, scores in (("", self.pair_scores), ("pooled_", self.pooled_scores)):
            arrays[f"{prefix}rows"] = np.array(list(scores), np.int64)
            arrays[f"{prefix}scores"] = np.array(list(scores.values()), np.float32)
        return arrays


@dataclass(frozen=True)
class QueryEvaluation:
    """One query, ranked and judged.

    Attributes:
        ranking: the whole database by global similarity.
        pair_scores: database row -> pair score, for every row of a shortlist that was scored in full.
        pooled_scores: database row -> pair score on pooled maps, for every row of a shortlist longer than `fine`.
        rankings: (shortlist length, setup) -> the ranking that was judged, ignored images left out.
        results: the same keys -> its result, None where the setup has no relevant image.
        seconds: what extracting it and scoring its pairs took.
    """

    ranking: Ranking
    pair_scores: dict[int, float]
    pooled_scores: dict[int, float]
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
        """How many pairs were scored in full."""
        return sum(len(query.pair_scores) for query in self.queries)

    @property
    def pooled_pairs(self) -> int:
        """How many pairs were scored on pooled maps."""
        return sum(len(query.pooled_scores) for query in self.queries)

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
            "pooled_pairs": self.pooled_pairs,
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
        fine: how many of a shortlist are scored in full; see `Plan`.
    """

    dataset: Dataset
    retriever: Retriever
    identity: str
    collection: Collection
    shortlists: Sequence[int]
    cropped: bool
    journal: Journal
    method: RerankWith = "cvnet"
    fine: int | None = None

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
        facts = query_facts(fine_identity(self.identity, self.fine), path, bbx, self.database)
        features = cache(partial(extract_query, self.retriever, path, bbx))
        stored = self.journal.get(facts)
        started = time.perf_counter()
        work = QueryWork.unpack(stored) if stored else QueryWork(features().descriptor, {}, {}, 0.0)
        ranking = Ranking.by_similarity(similarities(self.descriptors, work.descriptor))
        found = reranked(
            self.candidates(ranking, work.descriptor, truth),
            self.plan,
            partial(self.completed, work.pooled_scores, Pooled(self.collection), lambda: pooled(features())),
            partial(self.completed, work.pair_scores, self.collection, features),
        )
        pair_scores, pooled_scores = work.pair_scores | found.pair_scores, work.pooled_scores | found.pooled_scores
        if not stored or len(pair_scores) + len(pooled_scores) > len(work.pair_scores) + len(work.pooled_scores):
            seconds = work.seconds + time.perf_counter() - started
            work = QueryWork(work.descriptor, pair_scores, pooled_scores, seconds)
            self.journal.put(facts, work.pack())
        rankings = {(GLOBAL, setup): ranking.without(ignored(truth, setup)) for setup in SETUPS} | found.rankings
        return QueryEvaluation(
            ranking,
            found.pair_scores,
            found.pooled_scores,
            rankings,
            {case: judge(ranked.rows, truth, case[1]) for case, ranked in rankings.items()},
            work.seconds,
        )

    def plan(self, shortlist: int) -> Plan:
        return Plan(rerank=shortlist, method=self.method, fine=self.fine)

    def completed(
        self, known: dict[int, float], collection: Mapped, query: Callable[[], Features], rows: Sequence[int]
    ) -> dict[int, float]:
        """Pair scores by row, those of `rows` added that are not known."""
        missing = [row for row in rows if row not in known]
        if not missing:
            return known
        scores = self.retriever.score_rows(query(), collection, missing)
        return known | dict(zip(missing, scores.tolist(), strict=True))

    def candidates(self, ranking: Ranking, query: Array, truth: GroundTruth) -> dict[Case, Ranking]:
        plans = {k: self.plan(k) for k in self.shortlists}
        return candidates(ranking, query, self.descriptors, truth, plans)

    @cached_property
    def descriptors(self) -> Array:
        return self.collection.descriptors[:]  # (n, 2048)

    @cached_property
    def database(self) -> str:
        return database_digest(self.dataset)


def database_digest(dataset: Dataset) -> str:
    """A digest of the database's images, in their order."""
    return digest(tuple(content(path) for path in dataset.images))


def evaluate(
    dataset: Dataset, retriever: Retriever, collection: Collection, shortlists: Sequence[int], fine: int | None = None
) -> Evaluation:
    """Rank and judge every query, keeping nothing; as published, but for `fine`."""
    with Journal(None) as journal:
        return Evaluator(dataset, retriever, "", collection, shortlists, True, journal, fine=fine).run()


def candidates(
    ranking: Ranking, query: Array, descriptors: Array, truth: GroundTruth, plans: Mapping[int, Plan]
) -> dict[Case, Ranking]:
    """What each shortlist length and setup reranks: the whole ranking, refined where SuperGlobal takes part.

    As published, a list is refined once for all setups, before their ignored images leave it; pairs are scored on a
    shortlist of each setup's own.

    Args:
        query: (D,) float32; `descriptors` (n, D) are the database's.
        plans: by shortlist length.
    """

    @cache
    def refined(how: Refinement | None) -> Ranking:
        return rerank(query, ranking, descriptors, how) if how else ranking

    lists = {k: refined(plan.refinement) for k, plan in plans.items()}
    return {(k, setup): listed.without(ignored(truth, setup)) for k, listed in lists.items() for setup in SETUPS}


@dataclass(frozen=True)
class Reranked:
    """One query's shortlists, reranked.

    Attributes:
        rankings: of each shortlist length and setup, ignored images left out.
        pair_scores, pooled_scores: database row -> score, for every row that one of them needed.
    """

    rankings: dict[Case, Ranking]
    pair_scores: dict[int, float]
    pooled_scores: dict[int, float]


def reranked(
    candidates: Mapping[Case, Ranking], plan: Callable[[int], Plan], on_pooled_maps: Scores, in_full: Scores
) -> Reranked:
    """Candidates reranked by the plan of their shortlist's length, with scores that are asked for once for all."""
    rough = shortlisted(candidates, lambda k, listed: plan(k).pooled_pairs(len(listed.rows)))
    pooled_scores = on_pooled_maps(rough)
    candidates = {
        (k, setup): with_scores(listed, pooled_scores, plan(k).pooled_pairs(len(listed.rows)), rough=True)
        for (k, setup), listed in candidates.items()
    }
    rows = shortlisted(candidates, lambda k, _: plan(k).full_pairs)
    pair_scores = in_full(rows)
    return Reranked(
        {(k, setup): with_scores(listed, pair_scores, plan(k).full_pairs) for (k, setup), listed in candidates.items()},
        {row: pair_scores[row] for row in rows},
        {row: pooled_scores[row] for row in rough},
    )


def shortlisted(candidates: Mapping[Case, Ranking], count: Callable[[int, Ranking], int]) -> list[int]:
    """Rows among the first `count(k, ranking)` for a shortlist of any length k and setup, ascending."""
    firsts = (listed.rows[: count(k, listed)].tolist() for (k, _), listed in candidates.items())
    return sorted({row for first in firsts for row in first})


def with_scores(listed: Ranking, scores: Mapping[int, float], count: int, rough: bool = False) -> Ranking:
    """The first `count` candidates reranked by their scores."""
    first = np.array([scores[row] for row in listed.rows[:count].tolist()], np.float32)
    return listed.roughly_reranked(first) if rough else listed.reranked(first)


def fine_identity(identity: str, fine: int | None) -> str:
    """What results depend on where only `fine` of a shortlist are scored in full: their cost, too, is another."""
    return identity if fine is None else f"{identity} fine {fine}"


def extract_query(retriever: Retriever, path: Path, bbx: Sequence[float] | None) -> Features:
    """Features of a query image, cropped to its box where there is one."""
    image = read(path)
    try:
        return retriever.extract(image if bbx is None else sliced(image, bbx))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def sliced(image: Array, bbx: Sequence[float]) -> Array:
    """The box x1, y1, x2, y2 of an image as the published loader slices it: what lies outside is cut off."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = bbx
    return crop(image, (x1, y1, min(x2, width), min(y2, height)))
