"""HEIC, AVIF and cameras' raw files are read like every other photo: upright, bounded, and whole or an ImageError."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvnet_engine.engine import images
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import ImageError
from cvnet_engine.engine.exif import Shot
from cvnet_engine.engine.images import EXPECTED, FORMATS, SUFFIXES, decode, read_shot, read_size
from cvnet_engine.engine.photo_formats import missing
from cvnet_engine.engine.raw_file import MIN_PREVIEW_SIDE_PX
from tests.pictures import damaged, dated, encode, picture
from tests.raws import dng, heic

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # Pillow's notes on odd files

TALL = picture(120, 200)[:, :, ::-1].copy()  # (H, W, 3) RGB
PHOTO = Image.fromarray(TALL)
TAKEN = "2019:06:15 12:30:45"


def bgr(image: Image.Image) -> Array:
    return np.asarray(image)[:, :, ::-1]


def likeness(one: Array, other: Array) -> float:
    """The correlation of two pictures of one size; 1 for the same, near 0 for another."""
    assert one.shape == other.shape
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def with_preview(side_px: int, **options: object) -> bytes:
    """A raw file whose preview, of that longer side, is a negative of what its sensor saw."""
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


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_every_mode_of_heic_is_three_channels(mode):
    assert likeness(decode(heic(PHOTO.convert(mode))), bgr(PHOTO.convert(mode).convert("RGB"))) > 0.99


def test_heic_of_10_bits_keeps_the_high_ones():
    deep = Image.fromarray((np.asarray(PHOTO.convert("L")).astype(np.uint16) << 8) + 77)
    data = heic(deep)
    assert likeness(decode(data), bgr(PHOTO.convert("L").convert("RGB"))) > 0.99


@pytest.mark.parametrize("name", PHOTOS)
def test_the_date_is_kept(name):
    exif = dated(TAKEN, (48.5, -2.25))
    photos = {"heic": heic(PHOTO, exif=exif), "avif": encode(PHOTO, "AVIF", exif=exif)}
    shot = read_shot((PHOTOS | photos)[name])
    assert str(np.datetime64(shot.taken, "s")) == "2019-06-15T12:30:45"
    assert shot.place == ((48.5, -2.25) if name in photos else None)


@pytest.mark.parametrize("name", PHOTOS)
def test_the_size_is_known_from_the_header(name, tmp_path):
    (tmp_path / "photo").write_bytes(PHOTOS[name])
    assert read_size(tmp_path / "photo") == decode(PHOTOS[name]).shape[:2]


# -------------------------------------------------------------------------------------------------- raw files


@pytest.mark.parametrize(("side_px", "is_preview"), [(MIN_PREVIEW_SIDE_PX, True), (MIN_PREVIEW_SIDE_PX - 1, False)])
def test_a_preview_that_is_large_enough_stands_for_the_raw_file(side_px, is_preview):
    image = decode(with_preview(side_px))
    assert max(image.shape) == (side_px if is_preview else 200)
    small = np.asarray(Image.fromarray(image).resize((200, 120)))
    assert likeness(small, bgr(PHOTO)) * (-1 if is_preview else 1) > 0.5


def test_a_preview_lies_as_the_sensor_does():
    assert decode(with_preview(MIN_PREVIEW_SIDE_PX, orientation=6)).shape[:2] == (MIN_PREVIEW_SIDE_PX, 614)


def test_a_tiff_is_no_raw_file_and_a_raw_file_no_tiff():
    assert np.array_equal(decode(encode(PHOTO, "TIFF")), bgr(PHOTO))
    with Image.open(images.io.BytesIO(PHOTOS["raw with a preview"]), formats=FORMATS) as opened:
        assert opened.format == "CAMERA-RAW"
    with Image.open(images.io.BytesIO(encode(PHOTO, "TIFF")), formats=FORMATS) as opened:
        assert opened.format == "TIFF"


@pytest.mark.parametrize(
    "head",
    [b"IIRO", b"FUJIFILMCCD-RAW 0201", b"\0\0\0\x18ftypcrx ", b"IIU\0", b"II*\0\x10\0\0\0CR\2\0"],
)
def test_raw_files_of_every_maker_go_to_libraw(head):
    with pytest.raises(ImageError, match=r"damaged \(LibRaw: "):
        decode(head.ljust(2000, b"\0"))


# --------------------------------------------------------------------------------------------- bad photos


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["heic", "avif", "raw"])
def test_cut_short(name, share):
    data = PHOTOS[name]
    with pytest.raises(ImageError, match=r"damaged|not an image"):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_preview_that_is_cut_short_is_refused(share):
    data = PHOTOS["raw with a preview"]
    start = data.index(b"\xff\xd8\xff")
    with pytest.raises(ImageError, match="damaged"):
        decode(data[: start + int((data.index(b"\xff\xd9", start) - start) * share)])


@pytest.mark.parametrize("name", PHOTOS)
def test_random_damage_is_an_image_or_an_error(name):
    rng, errors = random.Random(0), []
    for _ in range(100):
        try:
            image = decode(damaged(PHOTOS[name], rng))
        except ImageError as error:
            errors.append(str(error))
            continue
        assert image.dtype == np.uint8
        assert image.shape[2:] == (3,)
    assert errors
    assert "\n" not in "".join(errors)


def test_damaged_exif_leaves_a_heic_photo_as_it_is():
    """libavif is strict about it: an AVIF photo is refused."""
    rng, exif = random.Random(0), dated(TAKEN, (1.0, 2.0), orientation=6)
    data = heic(Image.fromarray(picture(64, 48)), exif=exif)
    start, whole = data.index(exif[6:]), decode(data)
    for _ in range(60):
        broken = damaged(exif[6:], rng).ljust(len(exif) - 6, b"\0")
        assert np.array_equal(decode(data[:start] + broken + data[start + len(broken) :]), whole)


def test_too_many_pixels():
    side = 20_000
    lied = with_size(PHOTOS["raw"], side)
    with pytest.raises(ImageError, match=f"{side}x{side} pixels are too many|too many pixels"):
        decode(lied)
    for name in ("heic", "avif"):
        start = PHOTOS[name].index(b"ispe") + 8
        data = PHOTOS[name][:start] + struct.pack(">II", side, side) + PHOTOS[name][start + 8 :]
        with pytest.raises(ImageError, match=r"too many|damaged|not an image"):
            decode(data)


def test_a_raw_file_is_read_by_programs_that_lifted_pillows_bound(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode(PHOTOS["raw"]).shape == TALL.shape
    with pytest.raises(ImageError, match="too many"):
        decode(with_size(PHOTOS["raw"], 20_000))


def with_size(raw: bytes, side: int) -> bytes:
    """A raw file of more pixels than it holds."""
    for tag, value in ((256, 200), (257, 120)):
        old = struct.pack("<HHII", tag, 4, 1, value)
        assert raw.count(old) == 1
        raw = raw.replace(old, struct.pack("<HHII", tag, 4, 1, side))
    return raw


# --------------------------------------------------------------------------------------- without the libraries


@pytest.mark.parametrize(("name", "library"), [("heic", "pillow_heif"), ("raw", "rawpy")])
def test_without_its_library_a_photo_names_the_extra(name, library, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, library, None)
    message = rf"need {library}: run pip install '.\[photos\]'"
    with pytest.raises(ImageError, match=message):
        decode(PHOTOS[name])
    (tmp_path / "photo").write_bytes(PHOTOS[name])
    with pytest.raises(ImageError, match=message):
        read_size(tmp_path / "photo")
    assert read_shot(PHOTOS[name]) == Shot()


def test_every_other_photo_is_read_without_them(monkeypatch):
    for library in ("pillow_heif", "rawpy"):
        monkeypatch.setitem(sys.modules, library, None)
    for format_name in ("JPEG", "TIFF", "PNG", "AVIF"):
        assert decode(encode(PHOTO, format_name)).shape == (120, 200, 3)
    assert missing("JPEG") is None


def test_what_is_expected_names_every_format():
    names = {"CAMERA-RAW": "raw file"}
    assert all(names.get(name, name).lower() in EXPECTED.lower() for name in SUFFIXES.values())


def test_their_libraries_are_imported_for_the_first_such_photo():
    script = (
        "import sys, cvnet_engine.engine.images as i; i.decode(open(sys.argv[1], 'rb').read()); print(*sys.modules)"
    )
    jpeg = Path(__file__).parents[2] / "docs" / "ranking.jpg"
    loaded = subprocess.run([sys.executable, "-c", script, jpeg], capture_output=True, text=True, check=True).stdout
    assert "PIL.JpegImagePlugin" in loaded
    assert not {"pillow_heif", "rawpy", "cvnet_engine.engine.raw_file", "watchfiles", "PIL.AvifImagePlugin"} & set(
        loaded.split()
    )
