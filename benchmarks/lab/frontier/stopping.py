"""Number of pairs that early stopping scores at full resolution, computed from stored scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.lab.frontier.accuracy import Known, known
from benchmarks.lab.frontier.scores import MAPPED, Setting, Work
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.geometry import IMAGE_SCALES, Size, map_size
from cvnet_engine.engine.retrieval.engines import batches_of_equal
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.search import similarities
from cvnet_engine.engine.retrieval.searcher import EarlyStopping, Plan

SHORTLIST = 100
FINE = (None, 50, 30, 20)
TOP_K = (1, 5, 10)

Counts = dict[int, dict[int, float]]  # k -> largest number of pairs -> mean over queries


def stopping(work: Work, setting: Setting) -> Counts:
    """Count pairs for a setting's first map format and CVNet's descriptor at all scales.

    A search reads one batch ahead, so it may score up to a batch more.
    """
    database, queries = known(work, setting, MAPPED, IMAGE_SCALES, setting.maps[0])
    sizes = [map_size(image.size) for image in setting.images]
    plans = [Plan(rerank=SHORTLIST, rerank_full=fine) for fine in FINE]
    return {
        k: {plan.full_pairs: float(np.mean([pairs(database, q, sizes, plan, k) for q in queries])) for plan in plans}
        for k in TOP_K
    }


def pairs(database: Array, query: Known, sizes: Sequence[Size], plan: Plan, k: int) -> int:
    """Return how many of `plan.full_pairs` pairs are scored to find the best k."""
    ranking = Ranking.by_similarity(similarities(database, query.descriptor))
    rough = plan.coarse_pairs(len(ranking.rows))
    ranking = ranking.coarsely_reranked(query.pooled[ranking.rows[:rough]])
    pairs = EarlyStopping(ranking.first(plan.full_pairs), k)
    for batch in batches_of_equal(pairs.rows, sizes.__getitem__):
        if rows := list(filter(pairs.is_needed, batch)):
            pairs.add(rows, query.full[rows])
    return int(np.isfinite(pairs.scores).sum())
