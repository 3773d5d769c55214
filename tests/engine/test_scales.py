"""Which scales an image may be described at."""

from __future__ import annotations

import pytest

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.geometry import IMAGE_SCALES
from cvnet_engine.engine.scales import parse_scales, scales_wanted, shown


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
    assert parse_scales(shown(scales)) == scales


@pytest.mark.parametrize("text", ["", "0.7071", "1,2", "0.7", "1;1.4142", "one", "nan,1", "1,inf", "-1"])
def test_other_scales_are_refused(text):
    with pytest.raises(GalleryError, match=r"scales .*: expected"):
        parse_scales(text)


def test_scales_from_python_may_be_whole_numbers():
    assert scales_wanted([1, 0.7071]) == (0.7071, 1.0)
