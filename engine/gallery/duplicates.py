"""Photos that a gallery has more than once: the same file, and the same photo edited, shrunk or compressed anew."""

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
BLOCK, TILE = 256, 8192  # descriptors that are compared at once, and with how many: 8 MB of products


@dataclass(frozen=True)
class Match:
    """Two rows whose descriptors are similar, with their pair score, which confirms it."""

    one: int
    other: int
    similarity: float
    score: float


@dataclass(frozen=True)
class Group:
    """Rows, ascending, each of which is matched with another one of them, and the matches."""

    rows: tuple[int, ...]
    matches: tuple[Match, ...]


def identical(digests: Sequence[str]) -> list[tuple[int, ...]]:
    """Rows of equal files, by their SHA-256; only those that are more than one."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(digests):
        rows[digest].append(row)
    return [tuple(same) for same in rows.values() if len(same) > 1]


def near(
    collection: Collection,
    rows: Array,
    retriever: Engines,
    least_similarity: float = LEAST_SIMILARITY,
    least_score: float = LEAST_SCORE,
    done: Callable[[int], None] = lambda _: None,
) -> list[Group]:
    """Groups of near-duplicates among some rows (n,) int64 of a collection.

    Every two rows are compared by descriptor. Of those that are similar, only what would join two groups is scored: a
    series of a thousand shots takes a thousand pair scores, not half a million.

    Args:
        done: `done(n)` is called after each n rows.
    """
    groups = np.arange(len(rows))  # (n,) the group of each, named after one of its members
    matches: list[Match] = []
    for first, alike in similar(collection.descriptors, rows, least_similarity):
        for one, (others, similarities) in enumerate(alike, first):
            apart = groups[others] != groups[one]
            others, similarities = others[apart], similarities[apart]
            if len(others):
                scores = retriever.score_rows(collection.features(int(rows[one])), collection, rows[others].tolist())
                for other, similarity, score in zip(others, similarities, scores, strict=True):
                    if score >= least_score:
                        matches.append(Match(int(rows[one]), int(rows[other]), float(similarity), float(score)))
                        groups[groups == groups[other]] = groups[one]
        done(len(alike))
    return collected(rows, groups, matches)


def collected(rows: Array, groups: Array, matches: Sequence[Match]) -> list[Group]:
    """The groups of more than one row."""
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
    """For each of some rows (n,) of unit descriptors, the places in `rows` after it whose rows are that similar.

    Block by block: the first place of a block, and for each of its places those found (k,) int64 and their similarities
    (k,) float32, the most similar first. No matrix is larger than a block by a tile.
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
    """Places (k,) and similarities (k,) of all parts, the most similar first."""
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    places, similarities = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(-similarities, kind="stable")
    return places[order], similarities[order]
