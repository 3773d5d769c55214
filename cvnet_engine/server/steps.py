"""Jobs of requests, as iterators of steps for the scheduler."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.retrieval.searcher import CoarselyScored, Plan, Ranked, Reranked, Scored, Stages
from cvnet_engine.engine.retrieval.sharded import Coverage
from cvnet_engine.server.collection import Snapshot


@dataclass(frozen=True)
class Described:
    """Features of the query."""

    features: Features


def describe(query: Callable[[], Features]) -> Iterator[Described]:
    """Yield the features of a query."""
    yield Described(query())


def search(
    query: Callable[[], Features], snapshot: Snapshot, plan: Plan, selection: Array | None, own_row: int | None = None
) -> Iterator[Described | Coverage | Ranked | CoarselyScored | Scored | Reranked]:
    """Search a gallery: yield the query's features, then the steps of the searcher.

    Args:
        selection, own_row: see `Searcher.steps`.
    """
    stages = Stages()
    with stages.timed("features"):
        features = query()
    yield Described(features)
    with contextlib.closing(snapshot.searcher.steps(features, plan, selection, own_row)) as steps:
        for step in steps:
            yield replace(step, seconds=stages.seconds | step.seconds) if isinstance(step, Ranked | Reranked) else step
