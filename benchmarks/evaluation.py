"""Evaluating a retriever on a data set: mAP of the global ranking and of each reranked one, in E, M and H.

When reranking, the shortlist is counted separately for each setup after its ignored images are taken out, and
each setup is reranked on its own; a pair that several shortlists share is scored once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dataset import Dataset, GroundTruth
from benchmarks.protocol import SETUPS, QueryResult, ignored, judge, summarise
from engine.errors import ImageError
from engine.features import Features
from engine.gallery import Gallery
from engine.images import crop, read
from engine.ranking import Ranking
from engine.retriever import Collection, Retriever
from engine.session import Array

GLOBAL = 0  # the shortlist length that stands for no reranking


@dataclass(frozen=True)
class QueryEvaluation:
    """One query, ranked and judged.

    Attributes:
        ranking: the whole database by global similarity.
        pair_scores: database row -> pair score, for every pair that was scored.
        rankings: (shortlist length, setup) -> the ranking that was judged, ignored images left out.
        results: the same keys -> its result, None where the setup has no relevant image.
    """

    ranking: Ranking
    pair_scores: dict[int, float]
    rankings: dict[tuple[int, str], Ranking]
    results: dict[tuple[int, str], QueryResult | None]


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

    def to_json(self) -> dict[str, Any]:
        """The tables: `{"global": {"E": {"mAP": …}}, "rerank": {"20": {"E": …}}}`."""
        return {
            "global": {setup: self.means(GLOBAL, setup) for setup in SETUPS},
            "rerank": {str(k): {setup: self.means(k, setup) for setup in SETUPS} for k in self.shortlists},
            "pairs": self.pairs,
        }


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


def evaluate(
    dataset: Dataset,
    retriever: Retriever,
    collection: Collection,
    shortlists: Sequence[int],
    done: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Rank and judge every query against a collection whose rows are the data set's; `done` is called after each."""
    descriptors = collection.descriptors  # (n, 2048)
    queries = []
    for path, truth in zip(dataset.queries, dataset.ground_truth, strict=True):
        query = extract_query(retriever, path, truth)
        ranking = Ranking.by_similarity(descriptors @ query.descriptor)
        queries.append(evaluate_query(query, ranking, truth, retriever, collection, shortlists))
        done()
    return Evaluation(tuple(shortlists), tuple(queries))


def evaluate_query(
    query: Features,
    ranking: Ranking,
    truth: GroundTruth,
    retriever: Retriever,
    collection: Collection,
    shortlists: Sequence[int],
) -> QueryEvaluation:
    """Rerank a query's global ranking for each setup and shortlist length, and judge every outcome."""
    clean = {setup: ranking.without(ignored(truth, setup)) for setup in SETUPS}
    longest = max(shortlists, default=0)
    shortlisted = np.unique(np.concatenate([c.rows[:longest] for c in clean.values()])).tolist()
    pair_scores = dict(zip(shortlisted, retriever.score_rows(query, collection, shortlisted).tolist(), strict=True))

    rankings = {(GLOBAL, setup): clean[setup] for setup in SETUPS}
    for k in shortlists:
        for setup in SETUPS:
            scores = np.array([pair_scores[row] for row in clean[setup].rows[:k].tolist()], np.float32)
            rankings[k, setup] = clean[setup].reranked(scores)
    results = {key: judge(ranked.rows, truth, key[1]) for key, ranked in rankings.items()}
    return QueryEvaluation(ranking, pair_scores, rankings, results)


def extract_query(retriever: Retriever, path: Path, truth: GroundTruth) -> Features:
    """Features of a query image, cropped to its box as the published loader slices it: what lies outside is cut off."""
    image = read(path)
    height, width = image.shape[:2]
    x1, y1, x2, y2 = truth.bbx
    try:
        return retriever.extract(crop(image, (x1, y1, min(x2, width), min(y2, height))))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
