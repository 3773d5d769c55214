"""Feeds are exactly what an engine takes, or it says what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest

from cvnet_engine.engine.contract import TensorSpec, check_feeds
from cvnet_engine.engine.errors import BackendError

INPUTS = {
    "image": TensorSpec("float32", ("batch", 3, "height", "width")),
    "mask": TensorSpec("uint8", ("batch", "height")),
}
GOOD = {"image": np.zeros((2, 3, 5, 7), np.float32), "mask": np.zeros((2, 5), np.uint8)}


def test_good_feeds_pass():
    check_feeds(GOOD, INPUTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": None}, r"inputs \['image'\] were fed; expected \['image', 'mask'\]"),
        ({"other": np.zeros(1)}, r"inputs \['image', 'mask', 'other'\] were fed"),
        (
            {"image": np.zeros((2, 3, 5, 7))},
            r"'image' is float64 \(2, 3, 5, 7\); expected float32 batchx3xheightxwidth",
        ),
        ({"image": np.zeros((3, 5, 7), np.float32)}, r"'image' is float32 \(3, 5, 7\)"),
        ({"image": np.zeros((2, 4, 5, 7), np.float32)}, r"'image' is float32 \(2, 4, 5, 7\)"),
        ({"mask": np.zeros((2, 6), np.uint8)}, r"'mask' is uint8 \(2, 6\); expected uint8 batchxheight"),
        ({"mask": np.zeros((1, 5), np.uint8)}, r"'mask' is uint8 \(1, 5\)"),
    ],
)
def test_bad_feeds_are_named(change, message):
    feeds = {name: array for name, array in (GOOD | change).items() if array is not None}
    with pytest.raises(BackendError, match=message):
        check_feeds(feeds, INPUTS)
