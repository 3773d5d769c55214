"""Decoding, cropping and scaling equal OpenCV bit for bit; other input raises ImageError."""

from __future__ import annotations

import io
import os
import random
import re
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cvnet_engine.benchmarks.accuracy import dataset as datasets
from cvnet_engine.benchmarks.accuracy.dataset import Dataset
from cvnet_engine.engine.errors import ImageError
from cvnet_engine.engine.geometry import IMAGE_SCALES
from cvnet_engine.engine.images import (
    MAX_BYTES,
    SUFFIXES,
    check_size,
    crop,
    decode,
    decode_jpeg,
    limit_side,
    load,
    mode_to_bgr,
    normalise,
    read_bytes,
    read_size,
    rescale,
)
from tests.golden_inputs import SHARED
from tests.pictures import damaged, encode, oriented, picture, png

FTYP = b"\0\0\0\x18ftyp"
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # about unusual files

RGB = Image.fromarray(picture())
ALPHA = Image.fromarray(np.dstack([picture(), picture(seed=1)[:, :, 0]]))


def sixteen_bits(channels: int) -> bytes:
    deep = np.random.default_rng(0).integers(0, 1 << 16, (61, 83, channels), dtype=np.uint16)
    return cv2.imencode(".png", deep)[1].tobytes()


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)
JPEGS = {
    f"{kind}-{name}": encode(RGB, "JPEG", progressive=kind == "progressive", subsampling=subsampling, quality=85)
    for kind in ("baseline", "progressive")
    for name, subsampling in (("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2))
}
OTHERS = {
    "jpeg-grey": encode(RGB.convert("L"), "JPEG"),
    "jpeg-orientation-in-xmp": encode(RGB, "JPEG", xmp=XMP),
    "png-rgb": encode(RGB, "PNG"),
    "png-alpha": encode(ALPHA, "PNG"),
    "png-transparent-colour": encode(RGB, "PNG", transparency=(1, 2, 3)),
    "png-palette": encode(RGB.quantize(64), "PNG"),
    "png-palette-alpha": encode(RGB.quantize(64), "PNG", transparency=bytes(range(64))),
    "png-grey": encode(RGB.convert("L"), "PNG"),
    "png-grey-alpha": encode(ALPHA.convert("LA"), "PNG"),
    "png-1-bit": encode(RGB.convert("1"), "PNG"),
    **{f"png-16-bit-{channels}": sixteen_bits(channels) for channels in (1, 3, 4)},
    "webp": encode(RGB, "WEBP"),
    "bmp": encode(RGB, "BMP"),
    "ppm": encode(RGB, "PPM"),
    "gif": encode(RGB.quantize(64), "GIF"),
    "tiff": encode(RGB, "TIFF", compression="tiff_lzw"),
}


def imread(folder: Path, data: bytes) -> np.ndarray:
    path = folder / "image"
    path.write_bytes(data)
    image = cv2.imread(str(path))
    assert image is not None
    return image


@pytest.mark.parametrize("name", [*JPEGS, *OTHERS])
def test_decode_equals_imread(name, tmp_path):
    data = (JPEGS | OTHERS)[name]
    assert np.array_equal(decode(data), imread(tmp_path, data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))  # 1 to 8 are defined
def test_exif_orientation_equals_imread(kind, orientation, tmp_path):
    data = encode(RGB, kind, exif=oriented(orientation))
    image = decode(data)
    assert np.array_equal(image, imread(tmp_path, data))
    assert (image.shape == (83, 61, 3)) == (5 <= orientation <= 8)


def test_cmyk_equals_imread_but_for_rounding(tmp_path):
    data = encode(RGB.convert("CMYK"), "JPEG", quality=95)
    difference = decode(data).astype(int) - imread(tmp_path, data)
    assert np.abs(difference).max() <= 1


def test_an_animation_is_decoded_to_its_first_frame():
    first, second = RGB.quantize(64), RGB.rotate(180).quantize(64)
    data = encode(first, "GIF", save_all=True, append_images=[second])
    assert np.array_equal(decode(data), np.asarray(first.convert("RGB"))[:, :, ::-1])


@pytest.mark.parametrize("scale", [*IMAGE_SCALES, 0.31])
def test_rescale_equals_opencv(scale):
    image = picture(97, 131)
    published = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    assert np.array_equal(
        rescale(image, scale), cv2.resize(image, dsize=(0, 0), fx=scale, fy=scale, interpolation=published)
    )


def test_normalise_equals_the_formula():
    image = picture(40, 50)
    mean, std = np.float32([0.406, 0.456, 0.485]), np.float32([0.225, 0.224, 0.229])
    plain = (image.astype(np.float32) / np.float32(255) - mean) / std
    x = normalise(image)
    assert (x.shape, x.dtype) == ((1, 3, 40, 50), np.float32)
    assert np.array_equal(x, plain.transpose(2, 0, 1)[None])


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [((90, 60), 60, (60, 40)), ((90, 60), 90, (90, 60)), ((90, 60), None, (90, 60)), ((60, 90), 45, (30, 45))],
)
def test_limit_side(size, limit, expected):
    assert limit_side(picture(*size), limit).shape[:2] == expected


# ------------------------------------------------------------------------------------------------- photos


@pytest.fixture(scope="module")
def landmarks() -> Dataset:
    if not (SHARED / "data" / "landmarks-mini").is_dir():
        pytest.skip("the photos of landmarks-mini are not here")
    return datasets.load(SHARED / "data", "landmarks-mini")


def assert_scales_equal(image: np.ndarray, published: np.ndarray) -> None:
    assert np.array_equal(image, published)
    for scale in IMAGE_SCALES:
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        scaled = cv2.resize(published, dsize=(0, 0), fx=scale, fy=scale, interpolation=interpolation)
        assert np.array_equal(rescale(image, scale), scaled)


@pytest.mark.parametrize("count", [8, pytest.param(None, marks=pytest.mark.slow)])
def test_photos_equal_opencv(landmarks, count):
    for path, truth in list(zip(landmarks.queries, landmarks.ground_truth, strict=True))[:count]:
        x1, y1, x2, y2 = (int(bound) for bound in truth.bbx)
        assert_scales_equal(load(path, truth.bbx), cv2.imread(str(path))[y1:y2, x1:x2])
    for path in landmarks.images[:count]:
        assert_scales_equal(load(path), cv2.imread(str(path)))


# ---------------------------------------------------------------------------------------------- bad images


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("name", ["baseline-4:2:0", "progressive-4:4:4", "png-rgb", "webp", "gif", "tiff", "bmp"])
def test_cut_short(name, share):
    data = (JPEGS | OTHERS)[name]
    with pytest.raises(ImageError, match=r"damaged|not an image"):
        decode(data[: int(len(data) * share)])


def openable() -> list[str]:
    """Formats that Pillow can write and read again."""
    Image.init()
    return sorted(Image.SAVE.keys() & Image.OPEN.keys())


@pytest.mark.parametrize("format_name", openable())
def test_only_listed_formats_are_opened(format_name, tmp_path):
    """Pillow has many other readers; most are old, and one starts another program."""
    try:
        (tmp_path / "photo.jpg").write_bytes(encode(RGB, format_name))
    except (OSError, ValueError) as error:
        pytest.skip(f"not written here: {error}")
    listed = set(SUFFIXES.values()) | {"MPO"}  # a JPEG with further pictures behind it
    if format_name in listed:
        assert load(tmp_path / "photo.jpg").shape == (61, 83, 3)
        assert read_size(tmp_path / "photo.jpg") == (61, 83)
    else:
        with pytest.raises(ImageError, match="not an image"):
            load(tmp_path / "photo.jpg")
        with pytest.raises(ImageError, match="not an image"):
            read_size(tmp_path / "photo.jpg")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "jpeg", "packbits"])
def test_a_damaged_tiff_prints_nothing(compression, capfd):
    rng, data, failed = random.Random(0), encode(RGB, "TIFF", compression=compression), 0
    for _ in range(60):
        try:
            decode(damaged(data, rng, start=8))
        except ImageError:
            failed += 1
    assert failed > 10
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", [*JPEGS, "jpeg-grey"])
def test_an_ordinary_jpeg_is_decoded_without_pillow(name):
    data = (JPEGS | OTHERS)[name]
    assert np.array_equal(decode_jpeg(data, RGB.size), decode(data))


@pytest.mark.parametrize("name", ["baseline-4:2:0", "progressive-4:2:2", "jpeg-grey"])
def test_a_damaged_jpeg_is_decoded_as_pillow_does(name):
    rng = random.Random(0)
    decoded = 0
    for _ in range(300):
        data = damaged((JPEGS | OTHERS)[name], rng)
        try:
            image = decode_jpeg(data, RGB.size)
        except ValueError:
            continue
        decoded += 1
        assert np.array_equal(image, mode_to_bgr(Image.open(io.BytesIO(data))))
    assert decoded > 10


def test_a_flipped_bit_in_a_png_is_noticed():
    data, image = encode(RGB, "PNG"), decode(encode(RGB, "PNG"))
    refused = 0
    for position in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        try:
            assert np.array_equal(decode(bytes(flipped)), image)
        except ImageError:
            refused += 1
    assert refused > len(data) // 3 * 0.99


def test_damaged_exif_does_not_damage_the_image():
    rng, small = random.Random(0), Image.fromarray(picture(20, 30))
    whole = decode(encode(small, "JPEG"))
    for _ in range(100):
        image = decode(encode(small, "JPEG", exif=damaged(oriented(6), rng, start=6)))
        assert sorted(image.ravel()) == sorted(whole.ravel())  # upright or turned


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an image"),
        (b"\0" * 100, "not an image"),
        (b"Dear diary\n", "not an image"),
        (b"%PDF-1.4", "not an image"),
        (b"\xff\xd8\xff", "not an image"),
        (FTYP + b"heic" + bytes(100), "damaged"),
        (FTYP + b"mif1" + bytes(100), "damaged"),
        (FTYP + b"avif" + bytes(100), "damaged"),
        (FTYP + b"mp42" + bytes(100), "not an image"),
        (encode(Image.fromarray(np.full((20, 20), 1 << 20, np.int32)), "TIFF"), "more than 16 bits"),
        (encode(RGB.convert("F"), "TIFF"), "floating-point"),
        (png(20_000, 20_000), "too many"),
        (png(13_000, 13_000, whole=False), "too many"),
        (png(2**31 - 1, 2**31 - 1, whole=False), "too many"),
        (np.zeros((20, 20), np.uint8), r"\(20, 20\) of uint8; expected \(H, W, 3\)"),
        (np.zeros((20, 20, 4), np.uint8), r"\(20, 20, 4\) of uint8; expected \(H, W, 3\)"),
        (np.zeros((20, 20, 3)), "of float64; expected"),
        (Image.new("F", (20, 20)), "floating-point pixels"),
        (Image.open(io.BytesIO(encode(RGB, "PNG")[:900])), "damaged"),
        (7, "int is not an image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unreadable_images_are_refused(data, message):
    with pytest.raises(ImageError, match=message):
        load(data)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 100), (100, 16)])
def test_too_few_pixels(height, width):
    image = decode(encode(Image.fromarray(picture(height, width)), "PNG"))
    with pytest.raises(ImageError, match=f"{width}x{height} pixels are too few"):
        check_size(image)


@pytest.mark.parametrize(("height", "width"), [(1, 3000), (17, 30000), (3000, 2)])
def test_too_narrow_to_shrink(height, width):
    with pytest.raises(ImageError, match="shrunk to a longest side of 1024, are too few"):
        limit_side(np.zeros((height, width, 3), np.uint8), 1024)


@pytest.mark.parametrize(
    "bbx",
    [
        (-1, 0, 10, 10),
        (0, -1, 10, 10),
        (0, 0, 84, 10),
        (0, 0, 10, 62),
        (50, 0, 10, 10),
        (0, 50, 10, 10),
        (10, 10, 10, 20),
        (10.2, 10, 10.9, 20),
        (0, 0, float("nan"), 10),
        (0, 0, float("inf"), 10),
        (0, 0, 1e300, 10),
    ],
)
def test_bad_boxes(bbx):
    with pytest.raises(ImageError, match="bbox"):
        crop(picture(61, 83), bbx)


def test_box_bounds_are_truncated_and_may_touch_the_edges():
    image = picture(61, 83)
    assert np.array_equal(crop(image, (0, 0, 83, 61)), image)
    assert np.array_equal(crop(image, (1.9, 2.9, 10.9, 20.9)), image[2:20, 1:10])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.jpg", "cannot be read (No such file"),
        ("n" * 300, "cannot be read (File name too long"),
        ("text.jpg/b.jpg", "cannot be read (Not a directory"),
        ("text.jpg", "not an image"),
        ("pipe", "a pipe; expected an image file"),
        ("socket", "cannot be read"),
        ("/dev/zero", "a device; expected"),
        ("", "a folder; expected"),
    ],
)
@pytest.mark.parametrize("reader", [load, read_size])
def test_errors_name_the_file(tmp_path, name, message, reader):
    (tmp_path / "text.jpg").write_text("Dear diary")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(ImageError, match=re.escape(f"{tmp_path / name}: {message}")):
            reader(tmp_path / name)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ImageError, match=r"huge\.jpg: 715,827,881 bytes are too many; expected at most 715,827,880"):
        load(tmp_path / "huge.jpg")


def test_a_file_is_read_up_to_its_size():
    assert read_bytes(Path("/proc/self/status")) == b""  # 0 bytes long, and not empty


def test_scaling_beyond_the_memory_is_a_memory_error(monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise out_of_memory

    out_of_memory = cv2.error("Insufficient memory")
    out_of_memory.code = cv2.Error.StsNoMem
    monkeypatch.setattr(cv2, "resize", full)
    with pytest.raises(MemoryError):
        rescale(picture(), 0.5)


@pytest.mark.parametrize(
    ("max_side_px", "size"), [(None, (90, 200)), (200, (90, 200)), (150, (68, 150)), (100, (45, 100))]
)
@pytest.mark.parametrize("turned", [False, True])
def test_read_size_equals_the_loaded_size(tmp_path, max_side_px, size, turned):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(Image.fromarray(picture(90, 200)), "JPEG", exif=oriented(6 if turned else 1)))
    assert read_size(path, max_side_px) == (size[::-1] if turned else size)
    assert read_size(path, max_side_px) == load(path, max_side_px=max_side_px).shape[:2]


# --------------------------------------------------------------------------------------- other than files


def test_load_gives_the_same_pixels_for_every_type(tmp_path):
    sideways = encode(RGB, "JPEG", exif=oriented(6))
    (tmp_path / "a.jpg").write_bytes(sideways)
    expected = load(tmp_path / "a.jpg")
    for image in (str(tmp_path / "a.jpg"), sideways, Image.open(io.BytesIO(sideways)), expected):
        assert np.array_equal(load(image), expected)


def test_pillow_images_of_any_mode_are_read():
    grey = RGB.convert("L")
    pixels = load(grey)
    assert (pixels.shape, pixels.dtype) == ((61, 83, 3), np.uint8)
    assert (pixels == np.asarray(grey)[:, :, None]).all()


def test_arrays_are_bgr_and_of_any_layout():
    red = np.array(Image.new("RGB", (20, 20), "red"))
    assert load(red[:, :, ::-1])[0, 0].tolist() == [0, 0, 255]
    assert load(red[:, :, ::-1]).flags.c_contiguous
