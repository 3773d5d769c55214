"""Pooled maps, by the C library and by OpenCV: means of equal parts, L2-normalised."""

from __future__ import annotations

import numpy as np
import pytest

from cvnet_engine.engine.backends.native import library
from cvnet_engine.engine.errors import BackendError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.geometry import pooled_size, unit_map_sizes
from cvnet_engine.engine.retrieval import pooling
from cvnet_engine.engine.retrieval.pooling import Pooled, pooled
from tests.galleries import features

WAYS = pytest.mark.parametrize("shrink", [library.shrink, pooling.shrink], ids=["C", "OpenCV"])
SIZES = [(2, 2), (2, 3), (3, 2), (4, 4), (5, 7), (24, 32), (33, 21), (64, 48), (2, 300)]


def weights(length: int, parts: int) -> np.ndarray:
    """The fraction (parts, length) of each part that each position makes up."""
    edges = np.arange(parts + 1) * length / parts
    at = np.arange(length)
    overlap = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
    return np.clip(overlap, 0, None) * parts / length


def expected(unit_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (weights(*lengths) for lengths in zip(unit_map.shape[1:], size, strict=True))
    means = np.einsum("yh,chw,xw->cyx", rows, unit_map.astype(np.float64), columns)
    return means / np.linalg.norm(means, axis=0)


@WAYS
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("size", SIZES)
def test_pooled_maps_are_means_of_equal_parts(shrink, size, dtype):
    sizes = unit_map_sizes(pooled_size(size))
    for unit_map, smaller in zip(features(3, unit_map_sizes(size)).maps, sizes, strict=True):
        found = shrink(unit_map.astype(dtype), smaller)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected(unit_map, smaller), atol=2e-6)


@WAYS
def test_a_mean_of_zero_stays_zero(shrink):
    unit_map = np.zeros((256, 2, 4), np.float32)
    unit_map[0] = [[1, -1, 1, 1]] * 2
    assert shrink(unit_map, (1, 2))[0].tolist() == [[0.0, 1.0]]


def test_a_map_of_two_by_two_positions_is_not_reduced():
    assert pooled_size((2, 3)) == (2, 2)
    tiny = features(1, unit_map_sizes((2, 2)))
    unit = Features(tiny.descriptor, tuple(m / np.linalg.norm(m.astype(np.float32), axis=0) for m in tiny.maps))
    for before, after in zip(unit.maps, pooled(unit).maps, strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (24, 32), (23, 31)])
def test_pooled_maps_have_the_sizes_of_one_image(size):
    class Collection:
        def map_size(self, _row):
            return size

        def features(self, row):
            return features(row, unit_map_sizes(size))

    collection = Pooled(Collection())
    found = collection.features(7)
    assert found.map_size == collection.map_size(7) == pooled_size(size)
    assert [m.shape[1:] for m in found.maps] == unit_map_sizes(pooled_size(size))
    assert np.array_equal(found.descriptor, features(7).descriptor)


@pytest.mark.parametrize("size", [(0, 1), (5, 1), (1, 7)])
def test_a_larger_size_is_refused(size):
    with pytest.raises(BackendError, match="another size"):
        library.shrink(np.zeros((256, 4, 6), np.float32), size)


@pytest.fixture
def unloaded():
    """The library is not loaded yet, as in a new process."""
    for cached in (library.is_ready, library.library):
        cached.cache_clear()
    yield
    for cached in (library.is_ready, library.library):
        cached.cache_clear()


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_working_compiler_opencv_pools(monkeypatch, tmp_path, compiler):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", compiler)
    assert not library.is_ready()
    assert pooled(features(1)).map_size == (2, 3)
