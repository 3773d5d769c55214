"""HEIC, AVIF and raw files are read like every other photo: upright, with EXIF, complete or refused."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import ImageError
from cvnet_engine.engine.exif import Shot
from cvnet_engine.engine.images import EXPECTED, FORMATS, SUFFIXES, decode, read_shot, read_size
from cvnet_engine.engine.photo_formats import RAW, missing
from cvnet_engine.engine.raw_file import MIN_PREVIEW_SIDE_PX
from tests.pictures import damaged, dated, encode, picture
from tests.raws import dng, heic

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # about unusual files

TALL = picture(120, 200)[:, :, ::-1].copy()  # (H, W, 3) RGB
PHOTO = Image.fromarray(TALL)
TAKEN = "2019:06:15 12:30:45"


def bgr(image: Image.Image) -> Array:
    return np.asarray(image)[:, :, ::-1]


def likeness(one: Array, other: Array) -> float:
    """Correlation of two images of one size: 1 for the same image, near 0 for unrelated ones."""
    assert one.shape == other.shape
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def with_preview(side_px: int, **options: object) -> bytes:
    """A raw file whose preview, of this longer side, is the negative of its sensor values."""
    negative = Image.fromarray(255 - TALL).resize((side_px, side_px * 120 // 200))
    return dng(TALL, encode(negative, "JPEG"), negative.size, **options)


PHOTOS = {
    "heic": heic(PHOTO),
    "avif": encode(PHOTO, "AVIF"),
    "raw": dng(TALL),
    "raw with a preview": with_preview(MIN_PREVIEW_SIDE_PX),
}


# ------------------------------------------------------------------------------------------------ good photos


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright_once(orientation):
    exif = dated(TAKEN, orientation=orientation)
    expected = decode(encode(PHOTO, "PNG", exif=exif))
    assert (expected.shape == (200, 120, 3)) == (orientation >= 5)
    for data in (heic(PHOTO, exif=exif), encode(PHOTO, "AVIF", exif=exif), dng(TALL, orientation=orientation)):
        image = decode(data)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert likeness(image, expected) > 0.8  # the raw file's colours are a camera's, not these


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16"])
def test_heic_of_every_mode_has_three_channels(mode):
    photo = PHOTO.convert("L" if mode == "I;16" else mode)
    stored = Image.fromarray((np.asarray(photo).astype(np.uint16) << 8) + 77) if mode == "I;16" else photo
    assert likeness(decode(heic(stored)), bgr(photo.convert("RGB"))) > 0.99


@pytest.mark.parametrize("name", PHOTOS)
def test_date_place_and_size_are_read(name, tmp_path):
    exif = dated(TAKEN, (48.5, -2.25))
    photos = {"heic": heic(PHOTO, exif=exif), "avif": encode(PHOTO, "AVIF", exif=exif)}
    data = (PHOTOS | photos)[name]
    shot = read_shot(data)
    assert str(np.datetime64(shot.taken, "s")) == "2019-06-15T12:30:45"
    assert shot.place == ((48.5, -2.25) if name in photos else None)
    (tmp_path / "photo").write_bytes(data)
    assert read_size(tmp_path / "photo") == decode(data).shape[:2]


# -------------------------------------------------------------------------------------------------- raw files


@pytest.mark.parametrize(("side_px", "is_preview"), [(MIN_PREVIEW_SIDE_PX, True), (MIN_PREVIEW_SIDE_PX - 1, False)])
def test_a_large_preview_replaces_the_sensor_values(side_px, is_preview):
    image = decode(with_preview(side_px))
    assert max(image.shape) == (side_px if is_preview else 200)
    small = np.asarray(Image.fromarray(image).resize((200, 120)))
    assert likeness(small, bgr(PHOTO)) * (-1 if is_preview else 1) > 0.5


def test_a_preview_is_turned_as_the_sensor_values_are():
    assert decode(with_preview(MIN_PREVIEW_SIDE_PX, orientation=6)).shape[:2] == (MIN_PREVIEW_SIDE_PX, 614)


@pytest.mark.parametrize(("data", "kind"), [(PHOTOS["raw with a preview"], RAW), (encode(PHOTO, "TIFF"), "TIFF")])
def test_a_raw_file_is_told_from_a_tiff(data, kind):
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        assert opened.format == kind


@pytest.mark.parametrize(
    "head",
    [b"IIRO", b"FUJIFILMCCD-RAW 0201", b"\0\0\0\x18ftypcrx ", b"IIU\0", b"II*\0\x10\0\0\0CR\2\0"],
)
def test_raw_files_of_every_maker_are_read_by_libraw(head):
    with pytest.raises(ImageError, match=r"damaged \(LibRaw: "):
        decode(head.ljust(2000, b"\0"))


# --------------------------------------------------------------------------------------------- bad photos


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", PHOTOS)
def test_cut_short(name, share):
    data = PHOTOS[name]
    whole = data.index(b"\xff\xd9") if name == "raw with a preview" else len(data)  # the end of the preview
    with pytest.raises(ImageError, match=r"damaged|not an image"):
        decode(data[: int(whole * share)])


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("count", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_random_damage_gives_an_image_or_an_error(name, count):
    rng, errors = random.Random(0), []
    for _ in range(count):
        try:
            image = decode(damaged(PHOTOS[name], rng))
        except ImageError as error:
            errors.append(str(error))
            continue
        assert image.dtype == np.uint8
        assert image.shape[2:] == (3,)
    assert errors
    assert "\n" not in "".join(errors)


def test_damaged_exif_does_not_change_a_heic_photo():
    """An AVIF photo is refused: libavif is strict."""
    rng, exif = random.Random(0), dated(TAKEN, (1.0, 2.0), orientation=6)
    data = heic(Image.fromarray(picture(64, 48)), exif=exif)
    start, whole = data.index(exif[6:]), decode(data)
    for _ in range(60):
        broken = damaged(exif[6:], rng).ljust(len(exif) - 6, b"\0")
        assert np.array_equal(decode(data[:start] + broken + data[start + len(broken) :]), whole)


@pytest.mark.parametrize("bound", [Image.MAX_IMAGE_PIXELS, None])  # None: a program removed Pillow's bound
def test_too_many_pixels(monkeypatch, bound):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", bound)
    assert decode(PHOTOS["raw"]).shape == TALL.shape
    side = 20_000
    raw = PHOTOS["raw"]
    for tag, value in ((256, 200), (257, 120)):
        old = struct.pack("<HHII", tag, 4, 1, value)
        assert raw.count(old) == 1
        raw = raw.replace(old, struct.pack("<HHII", tag, 4, 1, side))
    with pytest.raises(ImageError, match=f"{side}x{side} pixels are too many|too many pixels"):
        decode(raw)
    for name in ("heic", "avif"):
        start = PHOTOS[name].index(b"ispe") + 8
        data = PHOTOS[name][:start] + struct.pack(">II", side, side) + PHOTOS[name][start + 8 :]
        with pytest.raises(ImageError, match=r"too many|damaged|not an image"):
            decode(data)


# --------------------------------------------------------------------------------------- without the libraries


@pytest.mark.parametrize(("name", "library"), [("heic", "pillow_heif"), ("raw", "rawpy")])
def test_a_missing_library_names_the_extra(name, library, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, library, None)
    message = rf"need {library}: run pip install '.\[photos\]'"
    with pytest.raises(ImageError, match=message):
        decode(PHOTOS[name])
    (tmp_path / "photo").write_bytes(PHOTOS[name])
    with pytest.raises(ImageError, match=message):
        read_size(tmp_path / "photo")
    assert read_shot(PHOTOS[name]) == Shot()


def test_other_photos_need_no_extra_library(monkeypatch):
    for library in ("pillow_heif", "rawpy"):
        monkeypatch.setitem(sys.modules, library, None)
    for format_name in ("JPEG", "TIFF", "PNG", "AVIF"):
        assert decode(encode(PHOTO, format_name)).shape == (120, 200, 3)
    assert missing("JPEG") is None


def test_errors_name_every_format():
    names = {"CAMERA-RAW": "raw file"}
    assert all(names.get(name, name).lower() in EXPECTED.lower() for name in SUFFIXES.values())


def test_libraries_are_imported_for_the_first_such_photo():
    script = (
        "import sys, cvnet_engine.engine.images as i; i.decode(open(sys.argv[1], 'rb').read()); print(*sys.modules)"
    )
    jpeg = Path(__file__).parents[2] / "docs" / "ranking.jpg"
    loaded = subprocess.run([sys.executable, "-c", script, jpeg], capture_output=True, text=True, check=True).stdout
    assert "PIL.JpegImagePlugin" in loaded
    assert not {"pillow_heif", "rawpy", "cvnet_engine.engine.raw_file", "watchfiles", "PIL.AvifImagePlugin"} & set(
        loaded.split()
    )
