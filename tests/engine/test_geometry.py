"""Sizes computed in integers are those of the published code, of OpenCV, and of the graphs."""

import cv2
import numpy as np
import pytest

from cvnet_engine.cvnet.reranker import scaled_size
from cvnet_engine.engine.backends import open_engine
from cvnet_engine.engine.geometry import AREA_SCALES, IMAGE_SCALES, map_size, pooled_size, scaled, unit_map_sizes


def test_unit_map_sizes_are_the_published_rounding():
    for n in range(2, 16_000):
        assert unit_map_sizes((n, 2)) == [scaled_size(n, 2, area) for area in AREA_SCALES]


def test_map_sizes_are_those_of_the_graph(bundle):
    with open_engine(bundle / "features.onnx", "onnxruntime") as features:
        for size in ((160, 224), (97, 131), (64, 33)):
            outputs = features.run({"image": np.zeros((1, 3, *size), np.float32)})
            assert unit_map_sizes(map_size(size)) == [outputs[f"map_{s}"].shape[2:] for s in range(3)]


@pytest.mark.parametrize("scale", IMAGE_SCALES)
def test_scaled_sizes_are_those_of_opencv(scale):
    for n in range(17, 1500):
        assert scaled((n, 17), scale) == cv2.resize(np.zeros((n, 17), np.uint8), None, fx=scale, fy=scale).shape


def test_pooled_maps_are_half_a_side_and_never_fewer_positions_than_an_image_has():
    assert [pooled_size((n, 2)) for n in (2, 3, 4, 5, 24, 25)] == [(n, 2) for n in (2, 2, 2, 3, 12, 13)]
    for n in range(2, 200):
        full, small = unit_map_sizes((n, n)), unit_map_sizes(pooled_size((n, n)))
        assert all(0 < s[0] <= f[0] for f, s in zip(full, small, strict=True))
