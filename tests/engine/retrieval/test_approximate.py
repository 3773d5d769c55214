"""Approximate search: measured recall, exact order of the candidates, and the choice of effort."""

from __future__ import annotations

import numpy as np
import pytest

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.ann_file import AnnFile
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.retrieval.ann_building import ExactResults, Trial, build, least_effort
from cvnet_engine.engine.retrieval.blocks import Descriptors
from cvnet_engine.engine.retrieval.inverted_file import DEPTH, Effort
from cvnet_engine.engine.retrieval.search import DescriptorIndex, similarities
from cvnet_engine.engine.retrieval.searcher import Plan, Searcher
from tests.galleries import PLACES, RECALL, VIEWS, NoPairs, photographs

QUERIES = photographs(np.arange(0, PLACES, 3), 2)


@pytest.fixture
def gallery(approximate_gallery):
    with Gallery(approximate_gallery) as opened:
        yield opened


def found(gallery, query, plan, approximate, **options):
    with Searcher(NoPairs(), gallery, approximate) as searcher:
        return searcher.find(Features(query, ()), plan, **options)


def test_recall_of_new_queries_is_as_measured_at_build(gallery):
    approximate, index = gallery.approximate(), DescriptorIndex(gallery.descriptors)
    recalls = []
    for query in QUERIES:
        exact = index.search(query, DEPTH).rows
        recalls.append(np.isin(exact, index.search(query, DEPTH, approximate.propose(query)).rows).mean())
    about = AnnFile.load(gallery.path).about
    assert about.recall >= RECALL
    assert np.mean(recalls) > RECALL - 0.02
    assert approximate.effort.candidates < len(gallery) / 2


def test_candidates_are_ordered_by_exact_similarity(gallery):
    for query in QUERIES[:5]:
        ranking = found(gallery, query, Plan(top_k=DEPTH, rerank=0), gallery.approximate()).ranking
        exact = similarities(gallery.descriptors[ranking.rows], query)
        assert np.array_equal(ranking.similarities, exact)
        assert sorted(zip(-exact, ranking.rows, strict=True)) == list(zip(-exact, ranking.rows, strict=True))


@pytest.mark.parametrize(
    ("plan", "options", "exact"),
    [
        (Plan(rerank=0), {}, False),
        (Plan(top_k=DEPTH, rerank=0), {"own_row": 7}, False),
        (Plan(top_k=DEPTH + 2, rerank=0), {}, True),
        (Plan(rerank=0), {"selection": np.arange(0, 2000, 7)}, True),
    ],
)
def test_deep_or_filtered_searches_are_exact(gallery, plan, options, exact):
    query = gallery.descriptors[7]
    outcome, expected = (found(gallery, query, plan, way, **options) for way in (gallery.approximate(), None))
    assert (outcome.exact, expected.exact) == (exact, True)
    if exact:
        assert np.array_equal(outcome.ranking.rows, expected.ranking.rows)
    assert (7 in outcome.ranking.rows) == ("own_row" not in options and 7 in expected.ranking.rows)


def test_exact_results_are_updated_part_by_part():
    rows, own = photographs(np.repeat(np.arange(40), VIEWS), 3), np.array([3, 400])
    exact = ExactResults(rows[own], own)
    for part in np.array_split(rows, 7):
        exact.update(part)
    for query, row, found_rows in zip(rows[own], own, exact.rows, strict=True):
        expected = DescriptorIndex(rows).search(query, DEPTH + 1).without(np.array([row])).rows
        assert sorted(found_rows) == sorted(expected)


def trial(candidates: int, recall: float, read_bytes: float) -> Trial:
    return Trial(Effort(1, candidates), np.array([recall - 0.01, recall + 0.01]), read_bytes)


def test_the_least_effort_that_reaches_the_recall_is_chosen():
    trials = [trial(1, 0.90, 10), trial(2, 0.98, 30), trial(3, 0.97, 20), trial(4, 0.99, 90), trial(5, 0.965, 15)]
    assert least_effort(trials, 0.95).effort.candidates == 3
    with pytest.raises(GalleryError, match=r"recall@100 of 0\.99 is not reached: at most 0\.9900 ± 0\.0100, with 4 "):
        least_effort(trials, 0.99)


def test_few_images_are_refused():
    few = Descriptors.of_array(photographs(np.arange(10), 1))
    with pytest.raises(GalleryError, match="10 images; expected at least 2,000"):
        build(few, 0.9)
