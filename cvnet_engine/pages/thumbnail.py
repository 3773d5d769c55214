"""Thumbnails embedded in HTML pages."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from cvnet_engine.engine.errors import ImageError
from cvnet_engine.engine.images import FIRST_SIDEWAYS, FORMATS, UPRIGHT, Box, exif_block, open_image, require_pixels

LONGER_SIDE_PX = 240
QUALITY = 80


@dataclass(frozen=True)
class Thumbnail:
    """A JPEG as a data URI, with the size in pixels of the upright original."""

    uri: str
    width_px: int
    height_px: int

    def place(self, box: Box) -> tuple[float, float, float, float]:
        """Return left, top, width and height of a box, clipped to the image, in percent of the image."""
        left, right = (100 * min(max(x / self.width_px, 0), 1) for x in box[0::2])
        top, bottom = (100 * min(max(y / self.height_px, 0), 1) for y in box[1::2])
        return left, top, right - left, bottom - top


def thumbnail(source: Path | str | bytes) -> Thumbnail | None:
    """Return an upright thumbnail, at most LONGER_SIDE_PX on its longer side, of a file or a file's bytes.

    Returns None for an unreadable image, so that it does not break the whole page.
    """
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open_image(Path(source)) as stream:
            small = reduced(stream)
    except ImageError:
        return None
    if small is None:
        return None
    jpeg, width, height = small
    return Thumbnail("data:image/jpeg;base64," + base64.b64encode(jpeg).decode(), width, height)


def reduced(stream: IO[bytes]) -> tuple[bytes, int, int] | None:
    """Return the thumbnail's JPEG, and the width and height in pixels of the upright original; None if unreadable."""
    try:
        with Image.open(stream, formats=FORMATS) as image:
            width, height = image.size
            require_pixels(width, height)
            orientation = exif_block(image).orientation()
            if orientation >= FIRST_SIDEWAYS:
                width, height = height, width
            image.draft("RGB", (2 * LONGER_SIDE_PX, 2 * LONGER_SIDE_PX))  # JPEG decodes at a fraction of its size
            small = image.convert("RGB")
    except MemoryError:
        raise
    except Exception:  # a damaged file can raise nearly anything
        return None
    small.thumbnail((LONGER_SIDE_PX, LONGER_SIDE_PX), Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    upright = UPRIGHT.get(orientation, np.asarray)(np.asarray(small))
    Image.fromarray(np.ascontiguousarray(upright)).save(jpeg, "JPEG", quality=QUALITY)
    return jpeg.getvalue(), width, height
