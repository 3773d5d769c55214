"""`load` gives the same pixels for every type of input."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cvnet_engine.engine.errors import ImageError
from cvnet_engine.engine.images import load
from tests.pictures import encode, oriented, picture


@pytest.fixture
def sideways() -> bytes:
    """A JPEG that is upright only once its EXIF orientation is applied."""
    return encode(Image.fromarray(picture()), "JPEG", exif=oriented(6))


def test_every_form_is_the_same_image(tmp_path, sideways):
    (tmp_path / "a.jpg").write_bytes(sideways)
    expected = load(tmp_path / "a.jpg")
    for image in (str(tmp_path / "a.jpg"), sideways, Image.open(io.BytesIO(sideways)), expected):
        assert np.array_equal(load(image), expected)


def test_pillow_images_of_any_mode_are_taken():
    grey = Image.fromarray(picture()).convert("L")
    pixels = load(grey)
    assert (pixels.shape, pixels.dtype) == ((61, 83, 3), np.uint8)
    assert (pixels == np.asarray(grey)[:, :, None]).all()


def test_arrays_are_bgr_and_of_any_layout():
    red = np.array(Image.new("RGB", (20, 20), "red"))
    assert load(red[:, :, ::-1])[0, 0].tolist() == [0, 0, 255]
    assert load(red[:, :, ::-1]).flags.c_contiguous


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"no image", "not an image"),
        (np.zeros((20, 20), np.uint8), r"\(20, 20\) of uint8; expected \(H, W, 3\)"),
        (np.zeros((20, 20, 4), np.uint8), r"\(20, 20, 4\) of uint8; expected \(H, W, 3\)"),
        (np.zeros((20, 20, 3)), "of float64; expected"),
        (Image.new("F", (20, 20)), "floating-point pixels"),
        (7, "int is not an image"),
    ],
)
def test_other_inputs_are_refused(image, message):
    with pytest.raises(ImageError, match=message):
        load(image)


def test_a_pillow_image_whose_file_is_damaged():
    with pytest.raises(ImageError, match="damaged"):
        load(Image.open(io.BytesIO(encode(Image.fromarray(picture()), "PNG")[:900])))
