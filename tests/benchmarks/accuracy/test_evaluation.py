"""The evaluation loop against a published run on real photos, and its rules on a small made-up case."""

from dataclasses import replace

import numpy as np
import pytest

from cvnet_engine.benchmarks.accuracy.databases import Database
from cvnet_engine.benchmarks.accuracy.dataset import Dataset, GroundTruth, load
from cvnet_engine.benchmarks.accuracy.evaluation import GLOBAL, QueryEntries, Task, evaluate, extract_query
from cvnet_engine.benchmarks.accuracy.journal import Journal
from cvnet_engine.benchmarks.accuracy.protocol import SETUPS, ignored
from cvnet_engine.benchmarks.methods.reference import reference
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.retrieval.pooling import Pooled
from cvnet_engine.engine.retrieval.superglobal import Refinement, rerank
from tests.galleries import features
from tests.golden_inputs import SHARED
from tests.pictures import photo

PUBLISHED = SHARED / "golden" / "landmarks-tiny_r50_seed0.npz"
needs_photos = pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"needs {PUBLISHED} and the photos beside it")


@needs_photos
@pytest.mark.parametrize(
    ("who", "most"),
    [
        ("engine", 2),
        pytest.param("engine", None, marks=pytest.mark.slow),
        ("reference", 1),
        pytest.param("reference", None, marks=pytest.mark.slow),
    ],
)
def test_first_query_as_published(who, most, engines, seeded_model):
    """Descriptors and pair scores of one query with its whole shortlist, or with the first `most` images of it."""
    engines = engines if who == "engine" else reference(seeded_model(50))
    dataset = load(SHARED / "data", "landmarks-tiny")
    want = np.load(PUBLISHED)
    (of_query,) = np.nonzero(want["pairs"][:, 1] == 0)
    of_query = of_query[:most]
    rows = want["pairs"][of_query, 0]
    query = extract_query(engines, dataset.queries[0], dataset.ground_truth[0].bbx)
    database = Database([engines.extract_from(dataset.images[row]) for row in rows])
    np.testing.assert_allclose(query.descriptor, want["desc_query"][0], atol=1e-5)
    np.testing.assert_allclose(database.descriptors, want["desc_db"][rows], atol=1e-5)
    scores = engines.score_rows(query, database, range(len(rows)))
    np.testing.assert_allclose(scores, want["scores"][of_query], atol=1e-4)


SCORES, COARSE = [1.0, 0.0, 0.1, 0.9, 0.9], [1.0, 0.0, 0.0, 0.4, 0.9]


class FakeEngines:
    """One descriptor for all images, pair scores by row; records the boxes and rows that it was given."""

    def __init__(self, scores=SCORES, descriptor=(1.0,)):
        self.scores, self.descriptor = scores, np.array(descriptor, np.float32)
        self.boxes, self.pairs, self.coarse_pairs = [], [], []

    def extract_from(self, _path, box):
        self.boxes.append(box)
        return replace(features(1), descriptor=self.descriptor)

    def score_rows(self, _query, collection, rows):
        coarse = isinstance(collection, Pooled)
        (self.coarse_pairs if coarse else self.pairs).extend(rows)
        scores = COARSE if coarse else self.scores
        return np.array([scores[row] for row in rows], np.float32)


TRUTH = GroundTruth((0, 0, 20, 20), easy=np.array([1]), hard=np.array([2]), junk=np.array([0]))


@pytest.fixture
def small(tmp_path):
    """One query; five database images that follow it with similarities 0.9, 0.8, 0.7, 0.6 and 0.5."""
    paths = tuple(photo(tmp_path / f"{row}.jpg") for row in range(6))
    dataset = Dataset("small", paths[:5], paths[5:], (TRUTH,))
    return dataset, database([[0.9], [0.8], [0.7], [0.6], [0.5]])


def database(descriptors):
    return Database([Features(np.array(descriptor, np.float32), ()) for descriptor in descriptors])


def run(small, fake, *shortlists, journal=None, identity="model", **options):
    """The evaluation of the query."""
    task = Task(small[0], shortlists, **options)
    entries = QueryEntries(task, identity, journal) if journal else None
    return evaluate(task, small[1], lambda: fake, entries)


def test_shortlists_are_counted_per_setup(small):
    """Ignored images take no place in a setup's shortlist, and no pair is scored twice."""
    fake = FakeEngines([1.0, 0.0, 0.0, 0.9, 0.9])
    (query,) = run(small, fake, 1, 2).queries
    # E ignores 0 and 2, M ignores 0, H ignores 0 and 1: first two are {1,3}, {1,2}, {2,3}
    assert sorted(fake.pairs) == [1, 2, 3]
    assert query.rankings[2, "E"].rows.tolist() == [3, 1, 4]
    assert query.rankings[2, "M"].rows.tolist() == [1, 2, 3, 4]
    assert query.rankings[2, "H"].rows.tolist() == [3, 2, 4]
    assert query.rankings[1, "H"].rows.tolist() == [2, 3, 4]
    assert query.rankings[GLOBAL, "M"].rows.tolist() == [1, 2, 3, 4]
    assert query.results[2, "E"].ap == pytest.approx(0.25)


def test_a_resumed_run_scores_only_missing_pairs(small, tmp_path):
    """A longer shortlist scores what is missing, a shorter one nothing; the figures are those of a run in one go."""
    fakes, found = [FakeEngines() for _ in range(4)], []
    with Journal(tmp_path / "j.sqlite") as journal:
        for fake, shortlists in zip(fakes, ([1], [1, 2], [1], [1, 2]), strict=True):
            found.append(run(small, fake, *shortlists, journal=journal))
    done = [(len(fake.boxes), sorted(fake.pairs)) for fake in fakes]
    assert done == [(1, [1, 2]), (1, [3]), (0, []), (0, [])]
    in_one_go = run(small, FakeEngines(), 1, 2)
    for again in (found[1], found[3]):
        assert again.to_json() == in_one_go.to_json()
        assert again.queries[0].pair_scores == in_one_go.queries[0].pair_scores
    assert found[2].queries[0].pair_scores.keys() == {1, 2}
    assert found[1].seconds == found[3].seconds > found[0].seconds


def test_coarse_to_fine_is_done_per_setup(small):
    """E ignores 0 and 2, M ignores 0, H ignores 0 and 1; the best of three candidates by coarse score is scored."""
    fake = FakeEngines()
    (query,) = run(small, fake, 3, rerank_full=1).queries
    assert sorted(fake.coarse_pairs) == [1, 2, 3, 4]
    assert sorted(fake.pairs) == [3, 4]  # 3 of {1, 2, 3}, 4 of {1, 3, 4} and of {2, 3, 4}
    assert query.rankings[3, "M"].rows.tolist() == [3, 1, 2, 4]
    assert query.rankings[3, "E"].rows.tolist() == [4, 3, 1]
    assert (set(query.pair_scores), set(query.coarse_scores)) == ({3, 4}, {1, 2, 3, 4})


def test_rerank_full_of_a_whole_shortlist_changes_nothing(small):
    fake = FakeEngines()
    assert run(small, fake, 1, 3, rerank_full=3).to_json() == run(small, FakeEngines(), 1, 3).to_json()
    assert not fake.coarse_pairs


def test_the_journal_separates_values_of_rerank_full(small, tmp_path):
    fakes, found = [FakeEngines() for _ in range(4)], []
    with Journal(tmp_path / "j.sqlite") as journal:
        for fake, rerank_full in zip(fakes, (None, 1, 1, 2), strict=True):
            found.append(run(small, fake, 3, journal=journal, rerank_full=rerank_full))
    done = [(len(fake.boxes), len(fake.coarse_pairs), len(fake.pairs)) for fake in fakes]
    assert done == [(1, 0, 4), (1, 4, 2), (0, 0, 0), (1, 4, 3)]
    assert found[1].to_json() == found[2].to_json()
    assert found[1].queries[0].coarse_scores == found[2].queries[0].coarse_scores


@pytest.mark.parametrize("change", ["model", "box"])
def test_entries_of_another_model_or_box_are_not_used(small, change):
    dataset, rows = small
    whole = replace(dataset, ground_truth=(replace(TRUTH, bbx=None),)) if change == "box" else dataset
    with Journal(None) as journal:
        run(small, FakeEngines([0.1] * 5), 2, journal=journal)
        other = FakeEngines([0.2] * 5)
        identity = "another model" if change == "model" else "model"
        (query,) = run((whole, rows), other, 2, journal=journal, identity=identity).queries
    assert other.boxes == [None if change == "box" else (0, 0, 20, 20)]
    assert query.pair_scores == {row: pytest.approx(0.2) for row in (1, 2, 3)}


def test_queries_are_cropped_as_published(tmp_path):
    """The parts of a box right of and below the image are cut off."""
    path, fake = photo(tmp_path / "q.jpg", 64, 80), FakeEngines()
    for box in ((10.9, 5, 70.2, 900), None):
        extract_query(fake, path, box)
    assert fake.boxes == [(10.9, 5, 70.2, 64), None]


@pytest.fixture
def clustered(small):
    """`small` with descriptors that have neighbours: rows 2 and 3 are nearly equal, and 0, which is junk, is near."""
    rows = np.float32([[0.9, 0.4, 0], [0.8, 0, 0.6], [0.75, 0.65, 0], [0.74, 0.66, 0], [0.6, 0, 0.8]])
    return small[0], database(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.mark.parametrize(("method", "k"), [("superglobal", 5), ("both", 2)])
def test_superglobal_refines_one_list_for_all_setups(clustered, method, k):
    """Ignored images take part in the refinement. Stored pair scores do not change SuperGlobal's ranking."""
    descriptor = np.float32([1, 0, 0])
    with Journal(None) as journal:
        run(clustered, FakeEngines([0.1] * 5, descriptor), 5, journal=journal)
        fake = FakeEngines(descriptor=descriptor)
        (query,) = run(clustered, fake, k, journal=journal, method=method).queries
    how = Refinement(5) if method == "superglobal" else Refinement()
    whole = rerank(descriptor, query.ranking, clustered[1].descriptors, how).rows
    assert fake.pairs == []
    for setup in SETUPS:
        left, ranked = whole[~np.isin(whole, ignored(TRUTH, setup))].tolist(), query.rankings[k, setup].rows.tolist()
        if method == "superglobal":
            assert ranked == left
        else:
            assert set(ranked[:2]) == set(left[:2])
            assert set(left[:2]) <= query.pair_scores.keys()


def test_without_reranking_no_pair_is_scored(small):
    fake = FakeEngines()
    (query,) = run(small, fake).queries
    assert set(query.results) == {(GLOBAL, setup) for setup in SETUPS}
    assert fake.pairs == []
    assert query.pair_scores == {}
