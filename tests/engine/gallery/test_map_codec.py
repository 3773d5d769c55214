"""Maps come back from a gallery as they were, or within half a step of 8 bits."""

import numpy as np
import pytest

from cvnet_engine.engine.gallery.map_codec import EightBitCodec, HalfCodec, parse_kind


@pytest.fixture
def unit_map():
    """(256, 5, 7) float32, unit norm per position, one position all zero."""
    array = np.random.default_rng(0).standard_normal((256, 5, 7), np.float32)
    array /= np.linalg.norm(array, axis=0)
    array[:, 2, 3] = 0
    return array


def test_float16_is_rounded_once(unit_map):
    stored = HalfCodec().decode(2, HalfCodec().encode(2, unit_map), 5, 7)
    np.testing.assert_array_equal(stored, unit_map.astype(np.float16))


def test_int8_is_within_half_a_step_of_each_positions_scale(unit_map):
    data = EightBitCodec().encode(2, unit_map)
    assert len(data) == 35 * (256 + 4)
    stored = EightBitCodec().decode(2, data, 5, 7)
    assert stored.dtype == np.float32
    step = np.abs(unit_map).max(axis=0) / 127
    assert (np.abs(stored - unit_map) <= 0.5 * step * (1 + 1e-5)).all()
    assert np.abs(stored - unit_map).max() > 0.4 * step.max()  # it is 8 bits
    assert (stored[:, 2, 3] == 0).all()


def test_int8_of_a_stored_float16_map(unit_map):
    half = unit_map.astype(np.float16)
    stored = EightBitCodec().decode(2, EightBitCodec().encode(2, half), 5, 7)
    np.testing.assert_allclose(stored, unit_map, atol=2e-3)


@pytest.mark.parametrize("codec", [HalfCodec(), EightBitCodec()])
@pytest.mark.parametrize("wrong", [lambda data: data[:-1], lambda data: data + b"\0", lambda _: b""])
def test_bytes_of_another_length_are_refused(codec, wrong, unit_map):
    with pytest.raises(ValueError, match=r"buffer|reshape"):
        codec.decode(2, wrong(codec.encode(2, unit_map)), 5, 7)


@pytest.mark.parametrize(
    "kind", ["float16", "int8", "coded:1", "coded:24", "coded:128", "coded:99%", "coded:9%", "coded:98.05%"]
)
def test_kinds_are_noted_as_they_are_given(kind):
    assert parse_kind(kind) == kind


def test_coded_maps_take_24_bytes_a_position_unless_told():
    assert parse_kind("coded") == "coded:24"


@pytest.mark.parametrize(
    "text",
    [
        *("", "int4", "int8:8", "coded:", "coded:0", "coded:129", "coded:+1", "coded:01", "coded:1\n", "coded:٣"),
        *("coded:%", "coded:0%", "coded:100%", "coded:99.0%", "coded:99.%", "coded:-9%", "coded:9e1%", "coded:nan%"),
    ],
)
def test_other_kinds_are_refused(text):
    with pytest.raises(ValueError, match="expected float16, int8, coded, coded:BYTES or coded:PERCENT%, at most 128"):
        parse_kind(text)
