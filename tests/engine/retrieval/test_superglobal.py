"""SuperGlobal's reranking against outputs of its published code."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from cvnet_engine.engine.images import normalise
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.superglobal import (
    Refinement,
    mean_weights,
    network_input,
    over_scales,
    rerank,
    resized,
    scaled,
)
from tests.golden_inputs import GOLDEN, SHARED
from tests.neighbours import settled

PUBLISHED = {"default": Refinement(), "M50": Refinement(50), "M20K3b30": Refinement(20, 3, 0.3)}


@cache
def units() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "superglobal_units.npz"))


@cache
def made() -> tuple[np.ndarray, np.ndarray]:
    """Database (200, 2048) and queries (5, 2048) of the unit goldens, float32 unit rows."""
    g = np.random.default_rng(426)
    centres = g.standard_normal((12, 2048))
    database = centres[np.arange(200) % 12] * 0.6 + g.standard_normal((200, 2048)) + 0.3
    queries = centres[[0, 3, 5, 7, 11]] * 0.5 + g.standard_normal((5, 2048)) + 0.3
    return tuple((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (database, queries))


def test_inputs_equal_those_of_the_goldens():
    database, queries = made()
    np.testing.assert_array_equal(database[:3, :8], units()["rr_db_head"])
    np.testing.assert_array_equal(queries[:3, :8], units()["rr_q_head"])


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("query", range(5))
def test_published_ranks_and_scores(name, query):
    database, queries = made()
    before = Ranking.by_similarity(database @ queries[query])
    np.testing.assert_array_equal(before.rows, units()["rr_ranks_global"][:, query])
    after = rerank(queries[query], before, database, PUBLISHED[name])
    np.testing.assert_array_equal(after.rows, units()[f"rr_{name}_ranks"][:, query])
    k = min(PUBLISHED[name].shortlist, 200)
    # the published scores are in the order of the refined similarity, ours in the final one
    published = units()[f"rr_{name}_final"][query][units()[f"rr_{name}_order2"][query]]
    np.testing.assert_allclose(after.refined[:k], published, atol=2e-7)
    assert np.isnan(after.refined[k:]).all()
    np.testing.assert_array_equal(after.rows[k:], before.rows[k:])


def test_published_weights_of_the_means():
    database, queries = made()
    shortlist = database[np.argsort(-(database @ queries[0]), kind="stable")]
    weights = mean_weights(shortlist @ shortlist.T, Refinement())
    neighbours, published = units()["rr_default_neighbours_q0"], units()["rr_default_weights_q0"]
    assert np.count_nonzero(weights, axis=1).tolist() == [10] * 200
    found = np.take_along_axis(weights, neighbours.astype(np.int64), axis=1)
    np.testing.assert_allclose(found, published / published.sum(axis=1, keepdims=True), atol=2e-7)


def test_fewer_images_than_neighbours():
    database, queries = made()
    few = database[:6]
    for query in range(5):
        after = rerank(queries[query], Ranking.by_similarity(few @ queries[query]), few, Refinement())
        np.testing.assert_array_equal(after.rows, units()["rr_six_ranks"][:, query])


def test_one_image_is_its_own_mean():
    database, queries = made()
    similarity = database[0] @ queries[0]
    after = rerank(queries[0], Ranking.by_similarity(database[:1] @ queries[0]), database, Refinement())
    np.testing.assert_allclose(after.refined, (similarity + 1) / 2, rtol=1e-6)


def test_published_maximum_over_scales():
    scales = units()["scale_desc"]  # (3, 4, 256)
    for image in range(4):
        unit = scales[:, image] / np.linalg.norm(scales[:, image], axis=1, keepdims=True)
        published = units()["sgem_max"][image]  # before its last normalisation
        np.testing.assert_allclose(over_scales(unit), published / np.linalg.norm(published), atol=1e-7)


@pytest.mark.parametrize("scale", [0.5, 0.7071, 1.4142, 2.0])
def test_published_resizing_rounds_down_without_antialiasing(scale):
    image = units()["image"].repeat(3, axis=1)  # (1, 3, 41, 53)
    published = units()[f"resize_{scale}_aa0"]
    got = resized(image, scaled((41, 53), scale))
    assert got.shape == (1, 3, *published.shape[2:])
    np.testing.assert_allclose(got[:, :1], published, atol=1e-5)


def test_an_image_is_normalised_before_it_is_scaled():
    image = np.random.default_rng(0).integers(0, 256, (41, 53, 3), np.uint8)
    np.testing.assert_array_equal(network_input(image, 1.0), normalise(image))
    np.testing.assert_array_equal(network_input(image, 0.7071), resized(normalise(image), (28, 37)))


@pytest.mark.parametrize(
    ("prefix", "how"), [("", Refinement()), ("M50_", Refinement(50)), ("M20K4_", Refinement(20, 4))]
)
def test_published_run_of_the_demonstration_model(prefix, how):
    """Whole queries over 168 images: scores of images whose neighbours are certain, and ranks without ties."""
    file = SHARED / "superglobal" / "superglobal_demo_landmarks-tiny.npz"
    if not file.is_file():
        pytest.skip(f"no {file.name} beside the project")
    run = dict(np.load(file))
    ranked = 0
    for query, descriptor in enumerate(run["desc_query"]):
        before = Ranking.by_similarity(run["sim"][:, query])
        after = rerank(descriptor, before, run["desc_db"], how)
        k = min(how.shortlist, 168)
        known = settled(run["desc_db"][before.rows[:k]], how, 2e-7)
        assert known.mean() > 0.9
        refined = dict(zip(after.rows.tolist(), after.refined, strict=True))
        ranks, scores = run[f"{prefix}ranks_rerank"][:k, query], run[f"{prefix}final"][query]
        published = dict(zip(ranks.tolist(), scores[run[f"{prefix}order2"][query]], strict=True))
        for row in before.rows[:k][known].tolist():
            assert abs(refined[row] - published[row]) <= 2e-6
        if known.all():  # otherwise an image may have another rank, and shift others
            gaps = -np.diff(after.refined[:k])
            apart = np.concatenate([[True], gaps > 4e-6]) & np.concatenate([gaps > 4e-6, [True]])
            np.testing.assert_array_equal(after.rows[:k][apart], ranks[apart])
            ranked += 1
    assert ranked > len(run["desc_query"]) / 2
