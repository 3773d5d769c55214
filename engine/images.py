"""Images: from a file to the network input, bit for bit equal to the published code.

Images are (H, W, 3) uint8 in BGR order, the order that the network was trained on.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError, _imaging

from cvnet_engine.engine import photo_formats
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import ImageError, one_line
from cvnet_engine.engine.exif import Block, Shot
from cvnet_engine.engine.files import IrregularFileError, open_regular
from cvnet_engine.engine.geometry import MIN_SIDE_PX

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the upright image
# a path; the bytes of an image file; pixels (H, W, 3) uint8 in BGR order, as `cv2.imread` returns them; a Pillow image
ImageLike = str | os.PathLike[str] | bytes | Array | Image.Image

SUFFIXES = {
    ".avif": "AVIF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    **photo_formats.SUFFIXES,
}  # a file's ending -> Pillow's name of its format; no other format is opened, whatever a file is called
# Tried in this order: those first that Pillow knows without importing all; AVIF before HEIC and raw files before
# TIFF, which each of them may begin like.
FORMATS = tuple(dict.fromkeys(("JPEG", "PNG", "GIF", "BMP", "PPM", "AVIF", photo_formats.RAW, *SUFFIXES.values())))
EXPECTED = "JPEG, PNG, WebP, TIFF, BMP, GIF, PPM, AVIF, HEIC or a camera's raw file"
AVIF_BRANDS = (b"avif", b"avis")
MAX_PIXELS = 89_478_485  # Pillow's own bound against decompression bombs
MAX_BYTES = 8 * MAX_PIXELS  # of a file: as many pixels, uncompressed, in four channels of 16 bits

# Mean and standard deviation of ImageNet in BGR order, on a scale of 0 to 1.
MEAN = np.array((0.406, 0.456, 0.485), np.float32)
STD = np.array((0.225, 0.224, 0.229), np.float32)
NORMALISED = (np.arange(256, dtype=np.float32) / np.float32(255) - MEAN[:, None]) / STD[:, None]  # (3, 256)

FIRST_SIDEWAYS = 5  # orientations from this on swap width and height
UPRIGHT: dict[int, Callable[[Array], Array]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image.transpose(1, 0, 2)[:, ::-1],
    7: lambda image: image.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda image: image.transpose(1, 0, 2)[::-1],
}  # EXIF orientation -> what undoes it, on (H, W, 3)


def open_raw(stream: IO[bytes], name: str | bytes) -> ImageFile:
    """A camera's raw file, see `RawFile`."""
    from cvnet_engine.engine.raw_file import RawFile

    return RawFile(stream, name)


Image.register_open(photo_formats.HEIC, photo_formats.open_heic, photo_formats.is_heic)
Image.register_open(photo_formats.RAW, open_raw, photo_formats.may_be_raw)
warnings.filterwarnings("ignore", module=r"PIL\b")  # notes on odd files, which `decode` takes or refuses
logging.getLogger("PIL").addHandler(logging.NullHandler())  # the same, as errors
with contextlib.suppress(AttributeError):  # libtiff's own, on standard error; found through Pillow, if linked with it
    PILLOW = ctypes.CDLL(_imaging.__file__)
    PILLOW.TIFFSetErrorHandler(None)
    PILLOW.TIFFSetWarningHandler(None)


def load(source: ImageLike, box: Sequence[float] | None = None, max_side_px: int | None = None) -> Array:
    """An upright image (H, W, 3) uint8 BGR, cropped to a box, then shrunk to a longest side.

    Raises:
        ImageError: not an image, damaged, too large, or a box outside the image. Begins with the path of a file.
    """
    with naming(source):
        image = pixels_of(source)
        return limit_side(image if box is None else crop(image, box), max_side_px)


@contextlib.contextmanager
def naming(source: ImageLike) -> Iterator[None]:
    """Begin the message of an ImageError with the path, if the source is a file."""
    try:
        yield
    except ImageError as error:
        if not isinstance(source, str | os.PathLike):
            raise
        raise ImageError(f"{source}: {error}") from error


def pixels_of(source: ImageLike) -> Array:
    match source:
        case str() | os.PathLike():
            return decode(read_bytes(Path(source)))
        case bytes():
            return decode(source)
        case Image.Image():
            return decode_opened(source)
        case np.ndarray():
            if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
                raise ImageError(f"an array {source.shape} of {source.dtype}; expected (H, W, 3) of uint8 in BGR order")
            return np.ascontiguousarray(source)
    raise ImageError(
        f"{type(source).__name__} is not an image; expected a path, the bytes of a file, a NumPy array or a PIL.Image"
    )


def decode_opened(image: Image.Image) -> Array:
    try:
        return upright(image, mode_to_bgr(image))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow decodes when pixels are first used; a damaged file can raise nearly anything
        raise ImageError(f"damaged ({one_line(error)}); expected a whole image") from error


def read_bytes(path: Path) -> bytes:
    """The content of a regular file of at most `MAX_BYTES`; nothing else is waited for or read.

    Raises:
        ImageError: anything else, or a file that cannot be read.
    """
    with open_image(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > MAX_BYTES:
            raise ImageError(f"{size:,} bytes are too many; expected at most {MAX_BYTES:,}: save it compressed")
        return stream.read(size)


def open_image(path: Path) -> BinaryIO:
    """A regular file, opened; nothing else is waited for.

    Raises:
        ImageError: anything else, or a file that cannot be read.
    """
    try:
        return open_regular(path)
    except IrregularFileError as error:
        raise ImageError(f"{error.strerror}; expected an image file") from error
    except OSError as error:  # of a socket, too
        raise ImageError(f"cannot be read ({error.strerror}); expected an image file") from error


def decode(data: bytes) -> Array:
    """The image in the bytes of a file, upright: its EXIF orientation is applied, an alpha channel dropped.

    16-bit values keep their high byte; an animation yields its first frame.

    Raises:
        ImageError: not an image, damaged, cut short, or more than `MAX_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            require_pixels(*image.size)
            if image.format == "PNG":
                require_checksums(data)
            return upright(image, to_bgr(data, image))
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise ImageError(unread(data)) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"too many pixels; expected at most {MAX_PIXELS:,}: resize it first") from error
    except Exception as error:  # a damaged file can raise nearly anything
        raise ImageError(f"damaged ({one_line(error)}); expected a whole image: copy it again") from error


def require_pixels(width: int, height: int) -> None:
    """Raise ImageError where an image has more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width}x{height} pixels are too many; expected at most {MAX_PIXELS:,}: resize it first")


def require_checksums(png: bytes) -> None:
    """Raise ValueError where a PNG's pixels are not as they were written: Pillow passes over the checksums of these."""
    view, start = memoryview(png), 8
    while start + 8 <= len(png):
        (length,), kind = struct.unpack_from(">I", png, start), png[start + 4 : start + 8]
        end = start + 8 + length
        if kind == b"IDAT" and png[end : end + 4] != struct.pack(">I", zlib.crc32(view[start + 4 : end])):
            raise ValueError("a checksum differs")
        start = end + 4


def read_shot(data: bytes) -> Shot:
    """When and where the photo in the bytes of a file was taken; unknown where the file is no image."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return (Block(data) if image.format == "TIFF" else exif_block(image)).shot()
    except Exception:  # a damaged file can raise nearly anything
        return Shot()


def exif_block(image: Image.Image) -> Block:
    """The EXIF block of an opened file, empty where it has none."""
    return Block(image.info.get("exif") or b"")


def read_size(path: Path, max_side_px: int | None = None) -> tuple[int, int]:
    """The (height, width) px that an image file has once upright and shrunk by `limit_side`, from its header alone.

    Raises:
        ImageError: no image that can be read.
    """
    try:
        with open_image(path) as stream, Image.open(stream, formats=FORMATS) as image:
            width, height = image.size
            if exif_block(image).orientation() >= FIRST_SIDEWAYS:
                width, height = height, width
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file can raise nearly anything
        raise ImageError(f"{path}: not an image ({error}); expected {EXPECTED}") from error
    scale = limiting((height, width), max_side_px)
    return round(height * scale), round(width * scale)


def unread(data: bytes) -> str:
    """What to say of a file that Pillow takes for none of `FORMATS`."""
    if data[4:8] == b"ftyp" and data[8:12] in AVIF_BRANDS:
        return "damaged, or Pillow was built without AVIF; expected a whole image: copy it again, or convert it to JPEG"
    return f"not an image; expected {EXPECTED}"


def to_bgr(data: bytes, image: Image.Image) -> Array:
    """A file's pixels (H, W, 3) uint8 BGR as they are stored; `image` is the file opened by Pillow."""
    if image.format == "JPEG":
        with contextlib.suppress(ValueError):  # what is odd about a file, or wrong with it: Pillow decides
            return decode_jpeg(data, image.size)
    image.load()
    return mode_to_bgr(image)


def decode_jpeg(data: bytes, size: tuple[int, int]) -> Array:
    """A JPEG's pixels (H, W, 3) uint8 BGR, the same as Pillow's in two thirds of the time.

    Args:
        size: the (width, height) that is expected.

    Raises:
        ValueError: libjpeg-turbo has anything to remark on the file, or it is in CMYK.
    """
    image: Array = simplejpeg.decode_jpeg(data, "BGR")
    if image.shape[1::-1] != size:
        raise ValueError(f"decodes to {image.shape}")
    return image


def upright(image: Image.Image, pixels: Array) -> Array:
    """Pixels (H, W, 3) as they are stored, turned by the image's EXIF orientation."""
    turn = UPRIGHT.get(exif_block(image).orientation(), np.asarray)
    return np.ascontiguousarray(turn(pixels))


def mode_to_bgr(image: Image.Image) -> Array:
    """Any Pillow mode as (H, W, 3) uint8 BGR."""
    if image.mode.startswith("I"):  # 16 bits of grey
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 0xFFFF:
            raise ImageError("more than 16 bits a value; expected 8 or 16: convert it first")
        return np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ImageError("floating-point pixels; expected 8 or 16 bits: convert it first")
    return np.asarray(image.convert("RGB"))[:, :, ::-1]


def crop(image: Array, bbx: Sequence[float]) -> Array:
    """The box x1, y1, x2, y2 (pixels, fractions cut off) of an image.

    Raises:
        ImageError: the box is empty, reaches outside the image, or is not of numbers.
    """
    height, width = image.shape[:2]
    if not np.isfinite(bbx).all():
        raise ImageError(f"bbox {','.join(map(str, bbx))} is no box; expected x1,y1,x2,y2 within 0,0,{width},{height}")
    x1, y1, x2, y2 = (int(v) for v in bbx)
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ImageError(
            f"bbox {x1},{y1},{x2},{y2} is empty or outside the image; expected x1,y1,x2,y2 within 0,0,{width},{height}"
        )
    return image[y1:y2, x1:x2]


def check_size(image: Array, min_side_px: int = MIN_SIDE_PX) -> None:
    """Raise ImageError where a side is shorter than it may be."""
    height, width = image.shape[:2]
    if min(height, width) < min_side_px:
        raise ImageError(f"{width}x{height} pixels are too few; expected at least {min_side_px} on each side")


def limiting(size: tuple[float, float], max_side_px: int | None) -> float:
    """The scale, at most 1, by which an image of this (height, width) keeps to a longest side, None for no limit."""
    return 1.0 if max_side_px is None else min(1.0, max_side_px / max(size))


def limit_side(image: Array, max_side_px: int | None) -> Array:
    """The image, shrunk where its longer side exceeds the limit.

    Raises:
        ImageError: too narrow to be shrunk that much.
    """
    height, width = image.shape[:2]
    scale = limiting((height, width), max_side_px)
    if scale < 1 and round(min(height, width) * scale) < MIN_SIDE_PX:
        raise ImageError(
            f"{width}x{height} pixels, shrunk to a longest side of {max_side_px}, are too few; "
            f"expected at least {MIN_SIDE_PX} on each side"
        )
    return rescale(image, scale)


def rescale(image: Array, scale: float) -> Array:
    """The image at `scale` times its sides, by area averaging below 1 and bilinear above.

    Raises:
        MemoryError: OpenCV finds no room for it.
    """
    if scale == 1:
        return image
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    try:
        return cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        raise


def normalise(image: Array) -> Array:
    """The network's input (1, 3, H, W) float32: `(image / 255 - mean) / std`, by table since a value is one of 256."""
    x = np.empty((1, 3, *image.shape[:2]), np.float32)
    for channel in range(3):
        np.take(NORMALISED[channel], image[:, :, channel], out=x[0, channel], mode="clip")
    return x
