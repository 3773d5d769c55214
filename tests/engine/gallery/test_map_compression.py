"""Compression of maps: the bytes per position, the loss, and the assignment of bits."""

from dataclasses import replace

import numpy as np
import pytest

from cvnet_engine.engine.gallery import map_compression
from cvnet_engine.engine.gallery.map_compression import MapCompression, fit, fit_levels, pack, places_of, share_bits

SPREAD = np.exp(-np.arange(256) / 12)  # standard deviations of a vector's components before it is turned
TURN = np.linalg.qr(np.random.default_rng(7).standard_normal((256, 256)))[0]


def unit_vectors(count: int, seed: int = 0) -> np.ndarray:
    """(count, 256) float32, unit norm, most of it in few directions."""
    vectors = np.random.default_rng(seed).standard_normal((count, 256)) * SPREAD @ TURN.T
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def compression() -> MapCompression:
    return fit(unit_vectors(4000), 24)


def through(compression: MapCompression, vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, 256) as they come back."""
    feature_map = vectors.T.reshape(256, len(vectors), 1)
    return compression.decode(compression.encode(feature_map), len(vectors), 1).reshape(256, -1).T


def test_the_size_is_the_bytes_per_position(compression):
    feature_map = unit_vectors(35).T.reshape(256, 5, 7)
    assert compression.position_bytes == 24
    assert len(compression.encode(feature_map)) == 24 * 35
    assert len(compression.encode(feature_map.astype(np.float16))) == 24 * 35


def test_decoded_vectors_are_close_and_of_unit_norm(compression):
    vectors = unit_vectors(1000, seed=1)  # others than it was fitted to
    back = through(compression, vectors)
    assert back.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), 1, rtol=1e-5)
    assert (back * vectors).sum(axis=1).mean() > 0.99


def test_more_bytes_lose_less():
    sample, vectors = unit_vectors(4000), unit_vectors(300, seed=1)
    losses = [1 - (through(fit(sample, count), vectors) * vectors).sum(axis=1).mean() for count in (4, 8, 16, 32)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 5 * losses[-1]


def test_axes_are_orthonormal(compression):
    np.testing.assert_allclose(
        compression.rotation.T @ compression.rotation, np.eye(len(compression.levels)), atol=1e-5
    )


def test_positions_are_independent(compression):
    vectors = unit_vectors(20)
    np.testing.assert_allclose(through(compression, vectors)[7:8], through(compression, vectors[7:8]), atol=1e-6)


def test_zero_vectors_decode_to_finite_values(compression):
    assert np.isfinite(through(compression, np.zeros((3, 256), np.float32))).all()


@pytest.mark.parametrize("length", [0, 24 * 35 - 1, 24 * 35 + 1])
def test_bytes_of_another_length_are_refused(compression, length):
    with pytest.raises(ValueError, match="reshape"):
        compression.decode(bytes(length), 5, 7)


def test_any_bytes_decode_to_unit_vectors(compression):
    data = np.random.default_rng(0).integers(0, 256, 24 * 35, np.uint8).tobytes()
    np.testing.assert_allclose(np.linalg.norm(compression.decode(data, 5, 7), axis=0), 1, rtol=1e-5)


def test_a_sample_of_one_vector_is_enough():
    vector = unit_vectors(1)
    assert (through(fit(vector, 8), vector) @ vector.T).item() == pytest.approx(1, abs=1e-3)


def test_bits_follow_the_moments_and_fill_the_bytes():
    bits = share_bits(4.0 ** -np.arange(10), 2)
    assert bits == sorted(bits, reverse=True)
    assert sum(bits) in (15, 16)
    assert len(pack(bits)) == 2


def test_equal_moments_get_equal_bits():
    assert share_bits(np.ones(8), 4) == [4] * 8


@pytest.mark.parametrize("seed", range(20))
def test_places_follow_the_packing(seed):
    bits = np.random.default_rng(seed).integers(0, 9, 60).tolist()
    packed = pack(bits)
    places = places_of([bits[dimension] for byte in packed for dimension in byte])
    expected = [(n, sum(bits[d] for d in byte[:i])) for n, byte in enumerate(packed) for i in range(len(byte))]
    assert list(places) == expected
    assert sorted(d for byte in packed for d in byte) == [d for d, b in enumerate(bits) if b]
    assert all(sum(bits[d] for d in byte) <= 8 for byte in packed)


def test_levels_of_a_gaussian_are_those_of_max_1960():
    values = np.random.default_rng(0).standard_normal(200_000)
    levels = fit_levels(values, 4)
    np.testing.assert_allclose(levels, [-1.510, -0.4528, 0.4528, 1.510], atol=0.02)  # Max 1960, table I, N = 4
    nearest = levels[np.abs(values[:, None] - levels).argmin(axis=1)]
    assert np.mean((values - nearest) ** 2) == pytest.approx(0.1175, rel=0.02)


def test_the_rotation_uses_no_blas_threads(compression, monkeypatch):
    data = compression.encode(unit_vectors(35).T.reshape(256, 5, 7))
    quiet = replace(compression, rotation=compression.rotation.view(WithoutBlas)).decode(data, 5, 7)
    monkeypatch.setattr(map_compression, "is_ready", lambda: False)
    np.testing.assert_allclose(quiet, compression.decode(data, 5, 7), atol=1e-6)


class WithoutBlas(np.ndarray):
    """A matrix for which BLAS is not called, as that has threads of its own."""

    def __matmul__(self, _other):
        raise AssertionError
