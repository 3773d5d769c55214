"""Duplicates in a gallery: identical files, and near-duplicates, which are edited, resized or recompressed photos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.retrieval.blocks import Descriptors
from cvnet_engine.engine.retrieval.engines import Collection, Engines
from cvnet_engine.engine.retrieval.ranking import NEAR_DUPLICATE

LEAST_SIMILARITY, LEAST_SCORE = NEAR_DUPLICATE, 0.5  # measured, see docs/galleries.md
BLOCK, TILE = 256, 8192  # descriptors compared at once: 8 MB of similarities


@dataclass(frozen=True)
class Match:
    """Two rows with similar descriptors, confirmed by their pair score."""

    one: int
    other: int
    similarity: float
    score: float


@dataclass(frozen=True)
class Group:
    """A group of near-duplicates: its rows, ascending, and the matches that connect them."""

    rows: tuple[int, ...]
    matches: tuple[Match, ...]


def identical(digests: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the groups of rows with equal SHA-256 digests, two rows or more per group."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(digests):
        rows[digest].append(row)
    return [tuple(same) for same in rows.values() if len(same) > 1]


def near(
    collection: Collection,
    rows: Array,
    engines: Engines,
    least_similarity: float = LEAST_SIMILARITY,
    least_score: float = LEAST_SCORE,
    done: Callable[[int], None] = lambda _: None,
) -> list[Group]:
    """Return the groups of near-duplicates among some rows (n,) int64 of a collection.

    All pairs are compared by descriptor. A similar pair is scored only if it would join two groups, so a series of
    1,000 similar photos takes about 1,000 pair scores, not 499,500.

    Args:
        done: `done(n)` is called after each n rows.
    """
    groups = np.arange(len(rows))  # (n,) the group of each row: the position of one of its members
    matches: list[Match] = []
    for first, alike in similar(collection.descriptors, rows, least_similarity):
        for one, (others, similarities) in enumerate(alike, first):
            apart = groups[others] != groups[one]
            others, similarities = others[apart], similarities[apart]
            if len(others):
                scores = engines.score_rows(collection.features(int(rows[one])), collection, rows[others].tolist())
                for other, similarity, score in zip(others, similarities, scores, strict=True):
                    if score >= least_score:
                        matches.append(Match(int(rows[one]), int(rows[other]), float(similarity), float(score)))
                        groups[groups == groups[other]] = groups[one]
        done(len(alike))
    return collected(rows, groups, matches)


def collected(rows: Array, groups: Array, matches: Sequence[Match]) -> list[Group]:
    """Return the groups with more than one row."""
    group_of = dict(zip(rows.tolist(), groups.tolist(), strict=True))
    members: dict[int, list[int]] = defaultdict(list)
    matched: dict[int, list[Match]] = defaultdict(list)
    for row, group in group_of.items():
        members[group].append(row)
    for match in matches:
        matched[group_of[match.one]].append(match)
    return [Group(tuple(members[group]), tuple(found)) for group, found in matched.items()]


def similar(
    descriptors: Array | Descriptors, rows: Array, least: float
) -> Iterator[tuple[int, list[tuple[Array, Array]]]]:
    """Find the pairs among `rows` (n,) with a similarity of at least `least`, block by block to bound the memory.

    Yields:
        The position in `rows` of the first row of a block; and for each row of the block, the later positions (k,)
        int64 of similar rows, with their similarities (k,) float32, most similar first.
    """
    for first in range(0, len(rows), BLOCK):
        block = descriptors[rows[first : first + BLOCK]]  # (b, 2048)
        found: list[list[tuple[Array, Array]]] = [[] for _ in block]
        for start in range(first, len(rows), TILE):
            products = block @ descriptors[rows[start : start + TILE]].T  # (b, t)
            for place in np.flatnonzero((products >= least).any(axis=1)):
                others = np.flatnonzero(products[place] >= least)
                others = others[others + start > first + place]
                found[place].append((others + start, products[place, others]))
        yield first, [by_similarity(parts) for parts in found]


def by_similarity(parts: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Concatenate positions (k,) and similarities (k,) of all parts, most similar first."""
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    places, similarities = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(-similarities, kind="stable")
    return places[order], similarities[order]
