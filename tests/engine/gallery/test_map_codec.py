"""Maps come back from a gallery as they were, or within half a step of 8 bits."""

import numpy as np
import pytest

from engine.gallery.map_codec import decode_map, encode_map


@pytest.fixture
def unit_map():
    """(256, 5, 7) float32, unit norm per position, one position all zero."""
    array = np.random.default_rng(0).standard_normal((256, 5, 7), np.float32)
    array /= np.linalg.norm(array, axis=0)
    array[:, 2, 3] = 0
    return array


def test_float16_is_rounded_once(unit_map):
    stored = decode_map(encode_map(unit_map, "float16"), unit_map.shape, "float16")
    np.testing.assert_array_equal(stored, unit_map.astype(np.float16))


def test_int8_is_within_half_a_step_of_each_positions_scale(unit_map):
    data = encode_map(unit_map, "int8")
    assert len(data) == 35 * (256 + 4)
    stored = decode_map(data, unit_map.shape, "int8")
    assert stored.dtype == np.float32
    step = np.abs(unit_map).max(axis=0) / 127
    assert (np.abs(stored - unit_map) <= 0.5 * step * (1 + 1e-5)).all()
    assert np.abs(stored - unit_map).max() > 0.4 * step.max()  # it is 8 bits
    assert (stored[:, 2, 3] == 0).all()


def test_int8_of_a_stored_float16_map(unit_map):
    half = unit_map.astype(np.float16)
    np.testing.assert_allclose(decode_map(encode_map(half, "int8"), half.shape, "int8"), unit_map, atol=2e-3)
