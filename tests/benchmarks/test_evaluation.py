"""The evaluation loop against a whole published run on real photos, and its rules on a small made-up case."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.dataset import Dataset, GroundTruth, load
from benchmarks.evaluation import GLOBAL, Selection, evaluate_query, extract_query
from benchmarks.protocol import SETUPS
from benchmarks.reference import ReferenceCollection, reference
from engine.features import Features
from engine.ranking import Ranking
from tests.golden_inputs import SHARED

PUBLISHED = SHARED / "golden" / "landmarks-tiny_r50_seed0.npz"
needs_photos = pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"needs {PUBLISHED} and the photos beside it")


class Described:
    """A collection made of a retriever and a list of files, extracted when asked for."""

    def __init__(self, retriever, paths):
        self.extracted = [retriever.extract_file(path) for path in paths]
        self.descriptors = np.stack([features.descriptor for features in self.extracted])

    def map_size(self, row):
        return self.extracted[row].map_size

    def features(self, row):
        return self.extracted[row]


@needs_photos
@pytest.mark.parametrize("who", ["engine", "reference"])
def test_first_query_as_published(who, retriever, seeded_model):
    """Descriptors and pair scores of one query and its whole shortlist."""
    retriever = retriever if who == "engine" else reference(seeded_model(50))
    dataset = load(SHARED / "data", "landmarks-tiny")
    want = np.load(PUBLISHED)
    rows = [int(row) for row, query in want["pairs"] if query == 0]
    query = extract_query(retriever, dataset.queries[0], dataset.ground_truth[0])
    collection = Described(retriever, [dataset.images[row] for row in rows])
    np.testing.assert_allclose(query.descriptor, want["desc_query"][0], atol=1e-5)
    np.testing.assert_allclose(collection.descriptors, want["desc_db"][rows], atol=1e-5)
    scores = retriever.score_rows(query, collection, range(len(rows)))
    np.testing.assert_allclose(scores, want["scores"][want["pairs"][:, 1] == 0], atol=1e-4)


class FakeRetriever:
    """Pair scores looked up by row, and a count of how often each was asked for."""

    def __init__(self, scores):
        self.scores, self.asked = scores, []

    def score_rows(self, _query, _collection, rows):
        self.asked += list(rows)
        return np.array([self.scores[row] for row in rows], np.float32)


def test_shortlists_are_counted_per_setup():
    """Ignored images take no place in a setup's shortlist, and no pair is scored twice."""
    similarities = np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32)
    truth = GroundTruth((0, 0, 1, 1), easy=np.array([1]), hard=np.array([2]), junk=np.array([0]))
    fake = FakeRetriever([1.0, 0.0, 0.0, 0.9, 0.9])
    query = evaluate_query(None, Ranking.by_similarity(similarities), truth, fake, None, [1, 2])
    # E ignores 0 and 2, M ignores 0, H ignores 0 and 1: first two are {1,3}, {1,2}, {2,3}
    assert sorted(fake.asked) == [1, 2, 3]
    assert query.rankings[2, "E"].rows.tolist() == [3, 1, 4]
    assert query.rankings[2, "M"].rows.tolist() == [1, 2, 3, 4]
    assert query.rankings[2, "H"].rows.tolist() == [3, 2, 4]
    assert query.rankings[1, "H"].rows.tolist() == [2, 3, 4]
    assert query.rankings[GLOBAL, "M"].rows.tolist() == [1, 2, 3, 4]
    assert query.results[2, "E"].ap == pytest.approx(0.25)


def test_selection_maps_rows():
    whole = type("Whole", (), {})()
    whole.paths = [Path("/a"), Path("/b"), Path("/c")]
    whole.descriptors = np.arange(3)[:, None]
    whole.features = lambda row: Features(row, ())
    whole.map_size = lambda row: (row, row)
    selection = Selection.of_gallery(whole, [Path("/c"), Path("/a")])
    assert selection.descriptors.ravel().tolist() == [2, 0]
    assert selection.features(0).descriptor == 2
    assert selection.map_size(1) == (0, 0)


def test_reference_collection_extracts_each_image_once():
    calls = []

    class Counting:
        def extract_file(self, path):
            calls.append(path)
            return Features(np.full(4, len(calls), np.float32), (np.zeros((1, 2, 3)),))

    paths = tuple(Path(f"/{n}") for n in range(3))
    collection = ReferenceCollection(Dataset("d", paths, (), ()), Counting())
    assert [collection.features(row).descriptor[0] for row in range(3)] == [1, 2, 3]
    assert collection.map_size(0) == (2, 3)
    assert calls == list(paths)


def test_no_reranking_means_no_pairs():
    truth = GroundTruth((0, 0, 1, 1), easy=np.array([1]), hard=np.array([], int), junk=np.array([], int))
    fake = FakeRetriever([])
    query = evaluate_query(None, Ranking.by_similarity(np.ones(3, np.float32)), truth, fake, None, [])
    assert set(query.results) == {(GLOBAL, setup) for setup in SETUPS}
    assert not query.pair_scores
