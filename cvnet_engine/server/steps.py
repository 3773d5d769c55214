"""What the engines do for a request, as the steps that the scheduler takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.images import crop, decode, limit_side
from cvnet_engine.engine.retrieval.retriever import Retriever
from cvnet_engine.engine.retrieval.searcher import Found, Plan, Ranked, RoughlyScored, Scored, Stages
from cvnet_engine.engine.retrieval.spread import Coverage
from cvnet_engine.server.collection import Snapshot

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Described:
    """Features of the query."""

    features: Features


def extract(retriever: Retriever, data: bytes, box: Box | None, max_side_px: int | None) -> Features:
    """Features of the image in a file's bytes, as `Retriever.extract_file` finds them in a file.

    Raises:
        ImageError: not an image, out of bounds, or a box that misses it.
    """
    image = decode(data)
    return retriever.extract(limit_side(image if box is None else crop(image, box), max_side_px))


def describe(query: Callable[[], Features]) -> Iterator[Described]:
    """The features of a query."""
    yield Described(query())


def search(
    query: Callable[[], Features], snapshot: Snapshot, plan: Plan, among: Array | None, leave_out: int | None = None
) -> Iterator[Described | Coverage | Ranked | RoughlyScored | Scored | Found]:
    """A query in a gallery: its features, then the steps of its searcher.

    Args:
        among, leave_out: see `Searcher.steps`.
    """
    stages = Stages()
    with stages.timed("features"):
        features = query()
    yield Described(features)
    with contextlib.closing(snapshot.searcher.steps(features, plan, among, leave_out)) as steps:
        for step in steps:
            yield replace(step, seconds=stages.seconds | step.seconds) if isinstance(step, Ranked | Found) else step
