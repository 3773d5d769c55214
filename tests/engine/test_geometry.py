"""Map sizes in integers equal those of the published code, OpenCV and the graphs; scales are parsed and checked."""

import cv2
import numpy as np
import pytest

from cvnet_engine.cvnet.reranker import scaled_size
from cvnet_engine.engine.backends import open_engine
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.geometry import (
    AREA_SCALES,
    IMAGE_SCALES,
    format_scales,
    map_size,
    parse_scales,
    pooled_size,
    require_scales,
    scaled,
    unit_map_sizes,
)


def test_unit_map_sizes_are_rounded_as_published():
    for n in range(2, 16_000):
        assert unit_map_sizes((n, 2)) == [scaled_size(n, 2, area) for area in AREA_SCALES]


def test_map_sizes_equal_those_of_the_graph(bundle):
    with open_engine(bundle / "features.onnx", "onnxruntime") as features:
        for size in ((160, 224), (97, 131), (64, 33)):
            outputs = features.run({"image": np.zeros((1, 3, *size), np.float32)})
            assert unit_map_sizes(map_size(size)) == [outputs[f"map_{s}"].shape[2:] for s in range(3)]


@pytest.mark.parametrize("scale", IMAGE_SCALES)
def test_scaled_sizes_equal_those_of_opencv(scale):
    for n in range(17, 1500):
        assert scaled((n, 17), scale) == cv2.resize(np.zeros((n, 17), np.uint8), None, fx=scale, fy=scale).shape


def test_pooled_maps_have_half_the_side_and_fit_an_image():
    assert [pooled_size((n, 2)) for n in (2, 3, 4, 5, 24, 25)] == [(n, 2) for n in (2, 2, 2, 3, 12, 13)]
    for n in range(2, 200):
        full, small = unit_map_sizes((n, n)), unit_map_sizes(pooled_size((n, n)))
        assert all(0 < s[0] <= f[0] for f, s in zip(full, small, strict=True))


@pytest.mark.parametrize(
    ("text", "scales"),
    [
        ("0.7071,1,1.4142", IMAGE_SCALES),
        ("1.4142, 1.0", (1.0, 1.4142)),
        ("1,0.7071,1", (0.7071, 1.0)),
        ("1", (1.0,)),
    ],
)
def test_scales_are_read_in_any_order(text, scales):
    assert parse_scales(text) == scales
    assert parse_scales(format_scales(scales)) == scales


@pytest.mark.parametrize("text", ["", "0.7071", "1,2", "0.7", "1;1.4142", "one", "nan,1", "1,inf", "-1"])
def test_other_scales_are_refused(text):
    with pytest.raises(GalleryError, match=r"scales .*: expected"):
        parse_scales(text)


def test_scales_from_python_may_be_whole_numbers():
    assert require_scales([1, 0.7071]) == (0.7071, 1.0)
