"""mAP of every point of the grid, computed from stored scores by the rules of `eval`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from benchmarks.lab.frontier.grid import FINE, METHODS, SCALES, SHORTLISTS, Point, is_distinct
from benchmarks.lab.frontier.pictures import Picture
from benchmarks.lab.frontier.scores import Setting, Work
from cvnet_engine.benchmarks.accuracy.dataset import GroundTruth
from cvnet_engine.benchmarks.accuracy.evaluation import reranked
from cvnet_engine.benchmarks.accuracy.protocol import SETUPS, ignored, judge
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.geometry import IMAGE_SCALES
from cvnet_engine.engine.retrieval.descriptors import DESCRIPTORS as KINDS
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.search import similarities
from cvnet_engine.engine.retrieval.searcher import Plan
from cvnet_engine.engine.retrieval.superglobal import rerank

Figures = dict[str, list[float]]  # setup -> AP in percent of each query that has relevant images


@dataclass(frozen=True)
class Known:
    """Results computed for one query: its descriptor (D,), and pair scores (n,) with every database image."""

    descriptor: Array
    full: Array
    pooled: Array
    truth: GroundTruth


def accuracies(work: Work, setting: Setting, descriptor: str, maps: str) -> Iterator[tuple[Point, Figures]]:
    """Yield the APs of every point of a setting with this descriptor and map format.

    Raises:
        DatasetError: scores are missing.
    """
    for scales in SCALES:
        for plan, figures in evaluated(*known(work, setting, descriptor, scales, maps)).items():
            chosen = descriptor, scales, setting.max_side_px, setting.precision, maps
            yield Point(*chosen, plan.method, plan.rerank, plan.rerank_full), figures


def known(
    work: Work, setting: Setting, descriptor: str, scales: Sequence[float], maps: str
) -> tuple[Array, list[Known]]:
    """Return the database descriptors (n, D), and the results of every query."""
    database = np.stack([at_scales(work, setting, descriptor, scales, image) for image in setting.images])
    queries = []
    for query, truth in zip(setting.queries, setting.dataset.ground_truth, strict=True):
        scores = work.stored(setting.pair_facts(maps, query))
        described = at_scales(work, setting, descriptor, scales, query)
        queries.append(Known(described, scores["full"], scores["pooled"], truth))
    return database, queries


def at_scales(work: Work, setting: Setting, descriptor: str, scales: Sequence[float], picture: Picture) -> Array:
    """Return an image's descriptor (D,) over some scales."""
    found = work.stored(setting.descriptor_facts(descriptor, picture))["descriptors"]
    return KINDS[descriptor].over_scales(found[[IMAGE_SCALES.index(scale) for scale in scales]])


def evaluated(database: Array, queries: Sequence[Known]) -> dict[Plan, Figures]:
    """Return the AP of every query by plan and setup, from the database descriptors (n, D)."""
    found: dict[Plan, Figures] = defaultdict(lambda: {setup: [] for setup in SETUPS})
    for query in queries:
        for plan, setup, rows in rankings(database, query):
            if result := judge(rows, query.truth, setup):
                found[plan][setup].append(100 * result.ap)
    return dict(found)


def rankings(database: Array, query: Known) -> Iterator[tuple[Plan, str, Array]]:
    """Yield the ranking (rows) of each plan in each setup."""
    ranking = Ranking.by_similarity(similarities(database, query.descriptor))
    for setup in SETUPS:
        yield Plan(rerank=0), setup, ranking.without(ignored(query.truth, setup)).rows
    for method, k in product(METHODS, SHORTLISTS):
        how = Plan(rerank=k, method=method).refinement
        refined = rerank(query.descriptor, ranking, database, how) if how else ranking
        plans = [Plan(rerank=k, method=method, rerank_full=fine) for fine in FINE]
        for plan, setup in product(filter(is_distinct, plans), SETUPS):
            candidates = refined.without(ignored(query.truth, setup))
            yield plan, setup, reranked(candidates, plan, query.pooled.__getitem__, query.full.__getitem__).rows
