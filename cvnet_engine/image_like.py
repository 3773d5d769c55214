"""An image in whatever form a program has it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import ImageError, one_line
from cvnet_engine.engine.images import decode, mode_to_bgr, upright

# a path; the bytes of an image file; pixels (H, W, 3) uint8 in BGR order, as `cv2.imread` gives them; Pillow's image
ImageLike = str | os.PathLike[str] | bytes | Array | Image.Image


def path_or_pixels(image: ImageLike) -> Path | Array:
    """A path as it is, anything else as upright pixels (H, W, 3) uint8 BGR.

    Raises:
        ImageError: bytes that are no image file, an array of another shape or type, a damaged image.
    """
    match image:
        case str() | os.PathLike():
            return Path(image)
        case bytes():
            return decode(image)
        case Image.Image():
            return pixels_of(image)
        case np.ndarray():
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ImageError(
                    f"an array {image.shape} of {image.dtype}; expected (H, W, 3) of uint8, BGR: convert it first"
                )
            return np.ascontiguousarray(image)
    raise ImageError(
        f"{type(image).__name__} is no image; expected a path, bytes of a file, a NumPy array or a PIL.Image"
    )


def pixels_of(image: Image.Image) -> Array:
    try:
        return upright(image, mode_to_bgr(image))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow decodes when pixels are asked for, and a damaged file can raise nearly anything
        raise ImageError(f"damaged ({one_line(error)}); expected a whole image") from error
