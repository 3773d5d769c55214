"""Thumbnails: upright, small, and absent where a picture cannot be read."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvnet_engine.pages.thumbnail import Thumbnail, thumbnail
from tests.pictures import dated, encode
from tests.raws import dng, heic


def pixels(small: Thumbnail) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(small.uri.removeprefix("data:image/jpeg;base64,"))))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter clockwise for display
    sideways = Image.new("RGB", (400, 200), "white")
    sideways.paste((255, 0, 0), (0, 0, 100, 200))
    sideways.save(tmp_path / "turned.jpg", exif=exif)
    shown = thumbnail(str(tmp_path / "turned.jpg"))
    assert shown is not None
    assert (shown.width_px, shown.height_px) == (200, 400)
    picture = pixels(shown)
    assert picture.size == (120, 240)
    top, bottom = (picture.getpixel((60, y)) for y in (10, 230))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[1] < 60 < 200 < bottom[1]  # the red quarter is on top


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_other_pixel_formats_are_shown(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.tif" if mode in ("CMYK", "I;16") else "x.png")
    Image.new(mode, (40, 30)).save(path)
    assert thumbnail(str(path)) is not None


def test_truncated_picture_gives_a_placeholder(photo: str) -> None:
    Path(photo).write_bytes(Path(photo).read_bytes()[:700])
    assert thumbnail(photo) is None


def test_a_damaged_avif_photo_gives_a_placeholder() -> None:
    whole = encode(Image.new("RGB", (50, 40), "red"), "AVIF")
    pixels_at = whole.index(b"mdat") + 4
    for damaged in (whole[:pixels_at] + bytes(len(whole) - pixels_at), whole.replace(b"av01", b"xxxx")):
        assert thumbnail(damaged) is None


@pytest.mark.parametrize("name", ["photo.heic", "photo.avif", "photo.dng"])
def test_photos_of_every_kind_are_shown_upright(tmp_path: Path, name: str) -> None:
    image = Image.new("RGB", (400, 200), "white")
    exif = dated("2019:06:15 12:30:45", orientation=6)
    data = {
        "photo.heic": lambda: heic(image, exif=exif),
        "photo.avif": lambda: encode(image, "AVIF", exif=exif),
        "photo.dng": lambda: dng(np.asarray(image), orientation=6),
    }[name]()
    (tmp_path / name).write_bytes(data)
    shown = thumbnail(str(tmp_path / name))
    assert shown is not None
    assert (shown.width_px, shown.height_px) == (200, 400)
    assert pixels(shown).size == (120, 240)
