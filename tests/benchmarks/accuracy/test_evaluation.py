"""The evaluation loop against a whole published run on real photos, and its rules on a small made-up case."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cvnet_engine.benchmarks.accuracy.dataset import Dataset, GroundTruth, load
from cvnet_engine.benchmarks.accuracy.evaluation import (
    GLOBAL,
    Evaluator,
    Finished,
    Selection,
    Task,
    evaluate,
    extract_query,
)
from cvnet_engine.benchmarks.accuracy.journal import Journal
from cvnet_engine.benchmarks.accuracy.protocol import SETUPS, ignored
from cvnet_engine.benchmarks.accuracy.reference_collection import ReferenceCollection
from cvnet_engine.benchmarks.methods.reference import reference
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.retrieval.pooling import Pooled
from cvnet_engine.engine.retrieval.superglobal import Refinement, rerank
from tests.galleries import features
from tests.golden_inputs import SHARED
from tests.pictures import photo

PUBLISHED = SHARED / "golden" / "landmarks-tiny_r50_seed0.npz"
needs_photos = pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"needs {PUBLISHED} and the photos beside it")


class Described:
    """A collection made of engines and a list of files, extracted when asked for."""

    def __init__(self, engines, paths):
        self.extracted = [engines.extract_from(path) for path in paths]
        self.descriptors = np.stack([features.descriptor for features in self.extracted])

    def map_size(self, row):
        return self.extracted[row].map_size

    def features(self, row):
        return self.extracted[row]


@needs_photos
@pytest.mark.parametrize(
    ("who", "most"), [("engine", None), ("reference", 2), pytest.param("reference", None, marks=pytest.mark.slow)]
)
def test_first_query_as_published(who, most, engines, seeded_model):
    """Descriptors and pair scores of one query and its whole shortlist, or so many of it."""
    engines = engines if who == "engine" else reference(seeded_model(50))
    dataset = load(SHARED / "data", "landmarks-tiny")
    want = np.load(PUBLISHED)
    (of_query,) = np.nonzero(want["pairs"][:, 1] == 0)
    of_query = of_query[:most]
    rows = want["pairs"][of_query, 0]
    query = extract_query(engines, dataset.queries[0], dataset.ground_truth[0].bbx)
    collection = Described(engines, [dataset.images[row] for row in rows])
    np.testing.assert_allclose(query.descriptor, want["desc_query"][0], atol=1e-5)
    np.testing.assert_allclose(collection.descriptors, want["desc_db"][rows], atol=1e-5)
    scores = engines.score_rows(query, collection, range(len(rows)))
    np.testing.assert_allclose(scores, want["scores"][of_query], atol=1e-4)


class FakeEngines:
    """One descriptor for all, pair scores by row, and a count of what was asked for."""

    def __init__(self, descriptor, scores):
        self.descriptor, self.scores, self.extracted, self.asked = np.array(descriptor, np.float32), scores, 0, []

    def extract(self, _image):
        self.extracted += 1
        return Features(self.descriptor, ())

    def score_rows(self, _query, _collection, rows):
        self.asked += list(rows)
        return np.array([self.scores[row] for row in rows], np.float32)


@dataclass(frozen=True)
class Flat:
    """A collection of descriptors alone."""

    descriptors: np.ndarray


TRUTH = GroundTruth((0, 0, 20, 20), easy=np.array([1]), hard=np.array([2]), junk=np.array([0]))


@pytest.fixture
def small(tmp_path):
    """One query; five database images that follow it with similarities 0.9, 0.8, 0.7, 0.6 and 0.5."""
    paths = tuple(photo(tmp_path / f"{row}.jpg") for row in range(6))
    dataset = Dataset("small", paths[:5], paths[5:], (TRUTH,))
    return dataset, Flat(np.array([[0.9], [0.8], [0.7], [0.6], [0.5]], np.float32))


def run(small, engines, shortlists, journal, identity="model", **options):
    dataset, collection = small
    task = Task(dataset, tuple(shortlists), **options)
    return Evaluator(collection, Finished(task, identity, journal)).run(lambda: engines)


def test_shortlists_are_counted_per_setup(small):
    """Ignored images take no place in a setup's shortlist, and no pair is scored twice."""
    fake = FakeEngines([1.0], [1.0, 0.0, 0.0, 0.9, 0.9])
    (query,) = evaluate(small[0], fake, small[1], [1, 2]).queries
    # E ignores 0 and 2, M ignores 0, H ignores 0 and 1: first two are {1,3}, {1,2}, {2,3}
    assert sorted(fake.asked) == [1, 2, 3]
    assert query.rankings[2, "E"].rows.tolist() == [3, 1, 4]
    assert query.rankings[2, "M"].rows.tolist() == [1, 2, 3, 4]
    assert query.rankings[2, "H"].rows.tolist() == [3, 2, 4]
    assert query.rankings[1, "H"].rows.tolist() == [2, 3, 4]
    assert query.rankings[GLOBAL, "M"].rows.tolist() == [1, 2, 3, 4]
    assert query.results[2, "E"].ap == pytest.approx(0.25)


def test_what_the_journal_has_is_not_computed_again(small, tmp_path):
    """A longer shortlist scores what is missing, a shorter one nothing; the figures are those of a run in one go."""
    fakes = [FakeEngines([1.0], [1.0, 0.0, 0.0, 0.9, 0.9]) for _ in range(4)]
    found = []
    with Journal(tmp_path / "j.sqlite") as journal:
        for fake, shortlists in zip(fakes, ([1], [1, 2], [1], [1, 2]), strict=True):
            found.append(run(small, fake, shortlists, journal))
    assert [(fake.extracted, sorted(fake.asked)) for fake in fakes] == [(1, [1, 2]), (1, [3]), (0, []), (0, [])]
    in_one_go = evaluate(small[0], FakeEngines([1.0], fakes[0].scores), small[1], [1, 2])
    for again in (found[1], found[3]):
        assert again.to_json() == in_one_go.to_json()
        assert again.queries[0].pair_scores == in_one_go.queries[0].pair_scores
    assert found[2].queries[0].pair_scores.keys() == {1, 2}
    assert found[1].seconds == found[3].seconds > found[0].seconds


class LooksFirst(FakeEngines):
    """Scores on pooled maps by row too."""

    def __init__(self, scores, rough):
        super().__init__([1.0], scores)
        self.rough, self.looked_at = rough, []

    def extract(self, image):
        return Features(super().extract(image).descriptor, features(1).maps)

    def score_rows(self, query, collection, rows):
        if not isinstance(collection, Pooled):
            return super().score_rows(query, collection, rows)
        self.looked_at += list(rows)
        return np.array([self.rough[row] for row in rows], np.float32)


def test_the_best_of_each_setups_shortlist_are_scored_in_full(small):
    """E ignores 0 and 2, M ignores 0, H ignores 0 and 1; of three candidates the best by pooled score is scored."""
    fake = LooksFirst([1.0, 0.0, 0.1, 0.9, 0.9], [1.0, 0.0, 0.0, 0.4, 0.9])
    (query,) = evaluate(small[0], fake, small[1], [3], rerank_full=1).queries
    assert sorted(fake.looked_at) == [1, 2, 3, 4]
    assert sorted(fake.asked) == [3, 4]  # 3 of {1, 2, 3}, 4 of {1, 3, 4} and of {2, 3, 4}
    assert query.rankings[3, "M"].rows.tolist() == [3, 1, 2, 4]
    assert query.rankings[3, "E"].rows.tolist() == [4, 3, 1]
    assert (set(query.pair_scores), set(query.coarse_scores)) == ({3, 4}, {1, 2, 3, 4})


def test_fine_as_long_as_the_shortlist_is_the_published_evaluation(small):
    scores = [1.0, 0.0, 0.1, 0.9, 0.9]
    published = evaluate(small[0], FakeEngines([1.0], scores), small[1], [1, 3])
    fake = LooksFirst(scores, None)
    assert evaluate(small[0], fake, small[1], [1, 3], rerank_full=3).to_json() == published.to_json()
    assert not fake.looked_at


def test_the_journal_keeps_evaluations_of_another_fine_apart(small, tmp_path):
    scores, rough = [1.0, 0.0, 0.1, 0.9, 0.9], [1.0, 0.0, 0.0, 0.4, 0.9]
    found, fakes = [], [LooksFirst(scores, rough) for _ in range(4)]
    with Journal(tmp_path / "j.sqlite") as journal:
        for fake, rerank_full in zip(fakes, (None, 1, 1, 2), strict=True):
            found.append(run(small, fake, [3], journal, rerank_full=rerank_full))
    done = [(fake.extracted, len(fake.looked_at), len(fake.asked)) for fake in fakes]
    assert done == [(1, 0, 4), (1, 4, 2), (0, 0, 0), (1, 4, 3)]
    assert found[1].to_json() == found[2].to_json()
    assert found[1].queries[0].coarse_scores == found[2].queries[0].coarse_scores


@pytest.mark.parametrize("change", [{"identity": "another model"}, {"cropped": False}])
def test_what_was_computed_otherwise_is_not_taken(small, change):
    with Journal(None) as journal:
        run(small, FakeEngines([1.0], [0.1] * 5), [2], journal)
        other = FakeEngines([1.0], [0.2] * 5)
        outcome = run(small, other, [2], journal, **change)
    assert other.extracted == 1
    assert outcome.queries[0].pair_scores == {row: pytest.approx(0.2) for row in (1, 2, 3)}


def test_queries_are_cropped_as_published(tmp_path):
    """Fractions cut off, what lies outside the image too; whole on request."""

    class Sizing:
        def extract(self, image):
            return image.shape

    path = photo(tmp_path / "q.jpg", 64, 80)
    assert extract_query(Sizing(), path, (10.9, 5, 70.2, 900)) == (59, 60, 3)
    assert extract_query(Sizing(), path, None) == (64, 80, 3)


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
    whole.pooled = lambda: SimpleNamespace(features=lambda row: Features(row + 10, ()), map_size=lambda row: (row, 1))
    assert selection.pooled().features(0).descriptor == 12
    assert selection.pooled().map_size(0) == (2, 1)


def test_reference_collection_describes_each_image_once(tmp_path):
    """Descriptions come from the journal; maps are extracted again, each once."""
    images = tuple(photo(tmp_path / f"{n}.jpg", seed=n) for n in range(3))
    dataset = Dataset("d", images, (), ())

    class Counting:
        def __init__(self):
            self.described, self.mapped = [], 0
            self.features = self

        def extract_from(self, path):
            self.described.append(path)
            return Features(np.full(4, len(self.described), np.float32), (np.zeros((1, 2, 3)),))

        def run(self, _feeds):
            self.mapped += 1
            return {"map_0": np.full((1, 1, 2, 3), self.mapped)}

    with Journal(None) as journal:
        first, again = Counting(), Counting()
        collections = [ReferenceCollection(dataset, engines, "model", journal) for engines in (first, again)]
    assert (first.described, again.described) == (list(images), [])
    for collection in collections:
        assert collection.descriptors[:, 0].tolist() == [1, 2, 3]
        assert collection.map_size(0) == (2, 3)
    maps = [collections[1].features(row).maps[0] for row in (2, 0, 2)]
    assert [m[0, 0, 0] for m in maps] == [1, 2, 1]


@pytest.fixture
def clustered(small):
    """`small` with descriptors that have neighbours: rows 2 and 3 are nearly one, and 0, which is junk, is near."""
    rows = np.float32([[0.9, 0.4, 0], [0.8, 0, 0.6], [0.75, 0.65, 0], [0.74, 0.66, 0], [0.6, 0, 0.8]])
    return small[0], Flat(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def test_one_list_is_refined_for_all_setups_and_no_pair_scored(clustered):
    """Though the journal has pair scores of another run; junk takes part in the refinement."""
    descriptor = [1.0, 0.0, 0.0]
    with Journal(None) as journal:
        run(clustered, FakeEngines(descriptor, [0.1] * 5), [5], journal)
        fake = FakeEngines(descriptor, [])
        (query,) = run(clustered, fake, [5], journal, method="superglobal").queries
    whole = rerank(np.float32(descriptor), query.ranking, clustered[1].descriptors, Refinement(5)).rows.tolist()
    assert fake.asked == []
    assert query.pair_scores == {}
    for setup, left_out in (("E", {0, 2}), ("M", {0}), ("H", {0, 1})):
        assert query.rankings[5, setup].rows.tolist() == [row for row in whole if row not in left_out]


def test_both_scores_pairs_of_the_refined_list(clustered):
    fake = FakeEngines([1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.9, 0.9])
    with Journal(None) as journal:
        (query,) = run(clustered, fake, [2], journal, method="both").queries
    whole = rerank(np.float32([1, 0, 0]), query.ranking, clustered[1].descriptors, Refinement()).rows
    firsts = {setup: whole[~np.isin(whole, ignored(TRUTH, setup))][:2].tolist() for setup in SETUPS}
    assert sorted(fake.asked) == sorted({row for first in firsts.values() for row in first})
    for setup, first in firsts.items():
        assert set(query.rankings[2, setup].rows[:2].tolist()) == set(first)


def test_no_reranking_means_no_pairs(small):
    fake = FakeEngines([1.0], [])
    (query,) = evaluate(small[0], fake, small[1], []).queries
    assert set(query.results) == {(GLOBAL, setup) for setup in SETUPS}
    assert not query.pair_scores
