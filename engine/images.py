"""Image decoding and preparation: from a file to the network input, bit-identical to the published code.

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
}  # file suffix -> Pillow's format name; files of other formats are not opened, whatever their suffix
# In the order in which Pillow tries them: first the formats that need no import of all plugins; AVIF before HEIC and
# raw files before TIFF, because their first bytes may be the same.
FORMATS = tuple(dict.fromkeys(("JPEG", "PNG", "GIF", "BMP", "PPM", "AVIF", photo_formats.RAW, *SUFFIXES.values())))
EXPECTED = "JPEG, PNG, WebP, TIFF, BMP, GIF, PPM, AVIF, HEIC or a camera's raw file"
AVIF_BRANDS = (b"avif", b"avis")
MAX_PIXELS = 89_478_485  # Pillow's own bound against decompression bombs
MAX_BYTES = 8 * MAX_PIXELS  # per file: `MAX_PIXELS` uncompressed, in four channels of 16 bits

# Mean and standard deviation of ImageNet's pixels in BGR order; pixels range from 0 to 1.
MEAN = np.array((0.406, 0.456, 0.485), np.float32)
STD = np.array((0.225, 0.224, 0.229), np.float32)
NORMALISED = (np.arange(256, dtype=np.float32) / np.float32(255) - MEAN[:, None]) / STD[:, None]  # (3, 256)

FIRST_SIDEWAYS = 5  # this EXIF orientation and the following ones swap width and height
UPRIGHT: dict[int, Callable[[Array], Array]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image.transpose(1, 0, 2)[:, ::-1],
    7: lambda image: image.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda image: image.transpose(1, 0, 2)[::-1],
}  # EXIF orientation -> function that makes (H, W, 3) upright


def open_raw(stream: IO[bytes], name: str | bytes) -> ImageFile:
    """Open a camera's raw file, see `RawFile`."""
    from cvnet_engine.engine.raw_file import RawFile

    return RawFile(stream, name)


Image.register_open(photo_formats.HEIC, photo_formats.open_heic, photo_formats.is_heic)
Image.register_open(photo_formats.RAW, open_raw, photo_formats.may_be_raw)
warnings.filterwarnings("ignore", module=r"PIL\b")  # about unusual files; `decode` raises if it cannot read one
logging.getLogger("PIL").addHandler(logging.NullHandler())  # the same for Pillow's log messages
with contextlib.suppress(AttributeError):  # the same for libtiff's messages on stderr, if Pillow is linked with libtiff
    PILLOW = ctypes.CDLL(_imaging.__file__)
    PILLOW.TIFFSetErrorHandler(None)
    PILLOW.TIFFSetWarningHandler(None)


def load(source: ImageLike, box: Sequence[float] | None = None, max_side_px: int | None = None) -> Array:
    """Return an upright image (H, W, 3) uint8 BGR, cropped to a box, then shrunk to a longest side.

    Raises:
        ImageError: not an image, damaged, too large, too small once shrunk, or a box outside the image. The message
            begins with the path if the source is a file.
    """
    with naming(source):
        image = pixels_of(source)
        return limit_side(image if box is None else crop(image, box), max_side_px)


@contextlib.contextmanager
def naming(source: ImageLike) -> Iterator[None]:
    """Prefix the message of an ImageError with the path, if the source is a file."""
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
    """Return the content of a regular file of at most `MAX_BYTES`.

    Raises:
        ImageError: not a regular file, too large, or not readable.
    """
    with open_image(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > MAX_BYTES:
            raise ImageError(f"{size:,} bytes are too many; expected at most {MAX_BYTES:,}: save it compressed")
        return stream.read(size)


def open_image(path: Path) -> BinaryIO:
    """Open a regular file. Does not block on a pipe or a device.

    Raises:
        ImageError: not a regular file, or not readable.
    """
    try:
        return open_regular(path)
    except IrregularFileError as error:
        raise ImageError(f"{error.strerror}; expected an image file") from error
    except OSError as error:  # also raised for a socket
        raise ImageError(f"cannot be read ({error.strerror}); expected an image file") from error


def decode(data: bytes) -> Array:
    """Decode the bytes of an image file. Applies the EXIF orientation and drops an alpha channel.

    16-bit values keep their high byte. An animation is decoded to its first frame.

    Raises:
        ImageError: not an image, damaged, truncated, or more than `MAX_PIXELS`.
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
    """Raise ImageError if an image has more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width}x{height} pixels are too many; expected at most {MAX_PIXELS:,}: resize it first")


def require_checksums(png: bytes) -> None:
    """Raise ValueError if a checksum of a PNG's pixel data is wrong. Pillow does not check these."""
    view, start = memoryview(png), 8
    while start + 8 <= len(png):
        (length,), kind = struct.unpack_from(">I", png, start), png[start + 4 : start + 8]
        end = start + 8 + length
        if kind == b"IDAT" and png[end : end + 4] != struct.pack(">I", zlib.crc32(view[start + 4 : end])):
            raise ValueError("a checksum differs")
        start = end + 4


def read_shot(data: bytes) -> Shot:
    """Return time and place from the EXIF metadata in the bytes of a file; empty if it cannot be read as an image."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return (Block(data) if image.format == "TIFF" else exif_block(image)).shot()
    except Exception:  # a damaged file can raise nearly anything
        return Shot()


def exif_block(image: Image.Image) -> Block:
    """Return the EXIF block of an opened file, empty if it has none."""
    return Block(image.info.get("exif") or b"")


def read_size(path: Path, max_side_px: int | None = None) -> tuple[int, int]:
    """Return the (height, width) px of an image file after rotation and `limit_side`. Reads only the header.

    Raises:
        ImageError: not an image, or not readable; the message begins with the path.
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
    """Return the error message for a file that Pillow cannot identify as one of `FORMATS`."""
    if data[4:8] == b"ftyp" and data[8:12] in AVIF_BRANDS:
        return "damaged, or Pillow was built without AVIF; expected a whole image: copy it again, or convert it to JPEG"
    return f"not an image; expected {EXPECTED}"


def to_bgr(data: bytes, image: Image.Image) -> Array:
    """Return a file's pixels (H, W, 3) uint8 BGR before rotation; `image` is the file opened by Pillow."""
    if image.format == "JPEG":
        with contextlib.suppress(ValueError):  # an unusual or damaged file: leave it to Pillow
            return decode_jpeg(data, image.size)
    image.load()
    return mode_to_bgr(image)


def decode_jpeg(data: bytes, size: tuple[int, int]) -> Array:
    """Decode a JPEG to (H, W, 3) uint8 BGR: the same pixels as Pillow's, in two thirds of the time.

    Args:
        size: expected (width, height).

    Raises:
        ValueError: libjpeg-turbo reports an error or a warning, the size differs, or the file is CMYK.
    """
    image: Array = simplejpeg.decode_jpeg(data, "BGR")
    if image.shape[1::-1] != size:
        raise ValueError(f"decodes to {image.shape}")
    return image


def upright(image: Image.Image, pixels: Array) -> Array:
    """Apply the image's EXIF orientation to its stored pixels (H, W, 3)."""
    turn = UPRIGHT.get(exif_block(image).orientation(), np.asarray)
    return np.ascontiguousarray(turn(pixels))


def mode_to_bgr(image: Image.Image) -> Array:
    """Convert an image of any Pillow mode to (H, W, 3) uint8 BGR.

    Raises:
        ImageError: floating-point pixels, or more than 16 bits per value.
    """
    if image.mode.startswith("I"):  # 16-bit grey
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 0xFFFF:
            raise ImageError("more than 16 bits per value; expected 8 or 16: convert it first")
        return np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ImageError("floating-point pixels; expected 8 or 16 bits: convert it first")
    return np.asarray(image.convert("RGB"))[:, :, ::-1]


def crop(image: Array, bbx: Sequence[float]) -> Array:
    """Crop an image to the box x1, y1, x2, y2 in pixels, truncated to integers.

    Raises:
        ImageError: the box is empty, extends outside the image, or is not four finite numbers.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = map(int, require_box(bbx))
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ImageError(
            f"bbox {x1},{y1},{x2},{y2} is empty or outside the image; expected x1,y1,x2,y2 within 0,0,{width},{height}"
        )
    return image[y1:y2, x1:x2]


def require_box(box: Sequence[float] | Array) -> Box:
    """Return a box as a tuple of Python numbers.

    Raises:
        ImageError: not four finite numbers.
    """
    corners = np.asarray(box)
    if corners.shape != (4,) or corners.dtype.kind not in "iuf" or not np.isfinite(corners).all():
        raise ImageError(f"bbox {box}: expected four numbers x1,y1,x2,y2")
    x1, y1, x2, y2 = corners.tolist()
    return x1, y1, x2, y2


def check_size(image: Array, min_side_px: int = MIN_SIDE_PX) -> None:
    """Raise ImageError if a side is shorter than `min_side_px`."""
    height, width = image.shape[:2]
    if min(height, width) < min_side_px:
        raise ImageError(f"{width}x{height} pixels are too few; expected at least {min_side_px} on each side")


def limiting(size: tuple[float, float], max_side_px: int | None) -> float:
    """Return the scale, at most 1, that limits an image of this (height, width) to a longest side; None: no limit."""
    return 1.0 if max_side_px is None else min(1.0, max_side_px / max(size))


def limit_side(image: Array, max_side_px: int | None) -> Array:
    """Shrink the image if its longer side exceeds the limit.

    Raises:
        ImageError: the shorter side would become shorter than `MIN_SIDE_PX`.
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
    """Resize the image by the factor `scale`, by area averaging below 1 and bilinearly above.

    Raises:
        MemoryError: OpenCV cannot allocate the result.
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
    """Return the network input (1, 3, H, W) float32: `(image / 255 - mean) / std`, from a table of the 256 values."""
    x = np.empty((1, 3, *image.shape[:2]), np.float32)
    for channel in range(3):
        np.take(NORMALISED[channel], image[:, :, channel], out=x[0, channel], mode="clip")
    return x
