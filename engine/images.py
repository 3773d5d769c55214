"""From an image file to a network input, bit for bit as the published code does it.

Images are (H, W, 3) uint8 in BGR order, the order that the network was trained on.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from engine.errors import ImageError
from engine.session import Array

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif"})
MAX_PIXELS = 89_478_485  # Pillow's own bound against decompression bombs
MIN_SIDE_PX = 17  # two stage-3 positions, the fewest that the quarter-area map can be made from

# Mean and standard deviation of ImageNet in BGR order, on a scale of 0 to 1.
MEAN = np.array((0.406, 0.456, 0.485), np.float32)
STD = np.array((0.225, 0.224, 0.229), np.float32)
NORMALISED = (np.arange(256, dtype=np.float32) / np.float32(255) - MEAN[:, None]) / STD[:, None]  # (3, 256)

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `decode` refuses what this would warn of


def read(path: Path, bbx: Sequence[float] | None = None) -> Array:
    """The image in a file, cropped to a box where one is given; see `decode` and `crop` for what is raised."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror}); expected an image file") from error
    image = decode(data)
    return image if bbx is None else crop(image, bbx)


def decode(data: bytes) -> Array:
    """The image in the bytes of a file, upright: its EXIF orientation is applied, an alpha channel dropped.

    16-bit values keep their high byte; an animation yields its first frame.

    Raises:
        ImageError: not an image, damaged, cut short, or more than `MAX_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(
                    f"{width}x{height} pixels are too many; expected at most {MAX_PIXELS:,}: resize it first"
                )
            return np.ascontiguousarray(to_bgr(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image; expected {', '.join(sorted(SUFFIXES))}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"too many pixels; expected at most {MAX_PIXELS:,}: resize it first") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's decoders raise on damaged files
        raise ImageError(f"damaged ({error}); expected a whole image: copy it again") from error


def to_bgr(image: Image.Image) -> Array:
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
        ImageError: the box is empty or reaches outside the image.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (int(v) for v in bbx)
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ImageError(
            f"bbox {x1},{y1},{x2},{y2} is empty or outside the image; expected x1,y1,x2,y2 within 0,0,{width},{height}"
        )
    return image[y1:y2, x1:x2]


def check_size(image: Array) -> None:
    """Raise ImageError where a side is shorter than `MIN_SIDE_PX`."""
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE_PX:
        raise ImageError(f"{width}x{height} pixels are too few; expected at least {MIN_SIDE_PX} on each side")


def limit_side(image: Array, max_side_px: int | None) -> Array:
    """The image, shrunk where its longer side exceeds the limit."""
    longer = max(image.shape[:2])
    return image if max_side_px is None or longer <= max_side_px else rescale(image, max_side_px / longer)


def rescale(image: Array, scale: float) -> Array:
    """The image at `scale` times its sides, by area averaging below 1 and bilinear above."""
    if scale == 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def normalise(image: Array) -> Array:
    """The network's input (1, 3, H, W) float32: `(image / 255 - mean) / std`, by table since a value is one of 256."""
    x = np.empty((1, 3, *image.shape[:2]), np.float32)
    for channel in range(3):
        np.take(NORMALISED[channel], image[:, :, channel], out=x[0, channel], mode="clip")
    return x
