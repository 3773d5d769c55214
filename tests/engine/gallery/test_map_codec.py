"""Names of the ways to store feature maps, and maps stored as float16."""

import numpy as np
import pytest

from cvnet_engine.engine.gallery.map_codecs import HalfCodec, parse_kind


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


@pytest.mark.parametrize("wrong", [lambda data: data[:-1], lambda data: data + b"\0", lambda _: b""])
def test_bytes_of_another_length_are_refused(wrong, unit_map):
    with pytest.raises(ValueError, match=r"buffer|reshape"):
        HalfCodec().decode(2, wrong(HalfCodec().encode(2, unit_map)), 5, 7)


@pytest.mark.parametrize("kind", ["float16", "coded:1", "coded:24", "coded:128"])
def test_kinds_are_noted_as_they_are_given(kind):
    assert parse_kind(kind) == kind


def test_coded_maps_take_24_bytes_a_position_unless_told():
    assert parse_kind("coded") == "coded:24"


@pytest.mark.parametrize(
    "text", ["", "int8", "coded:", "coded:0", "coded:129", "coded:+1", "coded:01", "coded:1\n", "coded:٣", "coded:99%"]
)
def test_other_kinds_are_refused(text):
    with pytest.raises(ValueError, match="expected float16, coded or coded:BYTES, at most 128"):
        parse_kind(text)
