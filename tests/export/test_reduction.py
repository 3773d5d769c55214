"""A basis for maps is taken only where pair scores stay as they are, and the fewest dimensions that leave them so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.backends.native import weights as native_weights
from cvnet_engine.engine.errors import BackendError, ExportError
from cvnet_engine.engine.geometry import unit_map_sizes
from cvnet_engine.export import reduction
from cvnet_engine.export.build import require_native
from cvnet_engine.export.reduction import Reduction, learn, pairs, reduce
from tests.engine.backends.native_fuzz import in_whole_maps, random_basis, random_weights


def described(dim: int, count: int = 4) -> list[dict[str, np.ndarray]]:
    """Photos whose maps lie in `dim` dimensions that all scales share."""
    rng = np.random.default_rng(0)
    basis = random_basis(rng, dim)
    found = []
    for _ in range(count):
        maps = [rng.standard_normal((1, dim, *size)) for size in unit_map_sizes((6, 8))]
        found.append({f"map_{s}": in_whole_maps(m / np.linalg.norm(m, axis=1), basis) for s, m in enumerate(maps)})
    return [{name: m.astype(np.float32) for name, m in outputs.items()} for outputs in found]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return random_weights(0, tmp_path / "reranker.npz")


def test_the_basis_holds_what_the_maps_of_all_scales_hold():
    photos = described(60)
    basis = learn(photos)
    assert basis.energy[59] == pytest.approx(1)
    assert basis.energy[30] < 0.9
    np.testing.assert_allclose(basis.leading(64).T @ basis.leading(64), np.eye(64), atol=1e-5)
    for m in photos[0].values():
        positions = m.reshape(256, -1)
        np.testing.assert_allclose(basis.leading(64) @ (basis.leading(64).T @ positions), positions, atol=1e-5)


def test_every_scale_counts_alike():
    """A direction that the smallest map alone has is as much as one of the largest."""
    photos = [{f"map_{s}": np.zeros((1, 256, 2 * s + 1, 2)) for s in range(3)}]
    for s in range(3):
        photos[0][f"map_{s}"][:, s] = 1
    np.testing.assert_allclose(learn(photos).energy[:3], (1 / 3, 2 / 3, 1))


def test_scores_in_enough_dimensions_are_those_of_whole_maps(weights):
    before = native_weights.load(weights)
    found = reduce(weights, "fp32", described(60), Reduction(Path, dims=(64,)))
    after = native_weights.load(weights)
    assert (found.dims, found.pairs) == (64, 8)
    assert found.energy == pytest.approx(1)
    assert found.max_drift < 1e-5
    assert after.dim == 64
    assert all(map(np.array_equal, after.tensors, before.tensors))


def test_the_fewest_dimensions_within_the_limit_are_taken(weights, monkeypatch):
    """By their mean drift and their largest."""
    drifts = {256: 0.0, 64: 0.003, 96: np.array([0.0] * 7 + [0.012]), 128: 0.001}
    monkeypatch.setattr(reduction, "pair_scores", lambda file, *_: np.zeros(8) + drifts[native_weights.load(file).dim])
    found = reduce(weights, "fp32", described(60), Reduction(Path))
    assert (found.dims, found.mean_drift, found.max_drift) == (128, 0.001, 0.001)
    assert native_weights.load(weights).dim == 128


def test_weights_stay_as_they_are_where_scores_would_drift(weights, monkeypatch):
    before = weights.read_bytes()
    monkeypatch.setattr(
        reduction, "pair_scores", lambda file, *_: np.full(8, 0.004 * (native_weights.load(file).dim < 256))
    )
    with pytest.raises(ExportError, match=r"in 128 dimensions drift by 4\.0e-03 .*expected 2\.0e-03 and 1\.0e-02"):
        reduce(weights, "fp32", described(60), Reduction(Path))
    assert weights.read_bytes() == before


def test_photos_are_compared_with_their_neighbours():
    photos = described(60)
    number = {id(photo): n for n, photo in enumerate(photos)}
    found = [(number[id(query)], number[id(key)]) for query, key in pairs(photos)]
    assert found == [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (1, 3), (2, 0), (3, 1)]


def test_backends_that_take_whole_maps_alone_are_refused():
    require_native(["native", "openvino"], "fp32")
    with pytest.raises(BackendError, match=r"only the native pair scorer.*openvino would score.*leave --map-dims out"):
        require_native(["openvino"], "fp32")
