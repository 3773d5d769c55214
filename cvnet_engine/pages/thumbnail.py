"""Small pictures that travel inside a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps

from cvnet_engine.pages.page import Box
from engine.errors import ImageError
from engine.exif import ORIENTATION
from engine.images import FIRST_SIDEWAYS, FORMATS, open_image

LONGER_SIDE_PX = 240
QUALITY = 80


@dataclass(frozen=True)
class Thumbnail:
    """A small picture as a data URI, with the size in pixels of the upright original."""

    uri: str
    width_px: int
    height_px: int

    def place(self, box: Box) -> tuple[float, float, float, float]:
        """Left, top, width and height of the part of a box that is in the picture, in percent of the picture."""
        left, right = (100 * min(max(x / self.width_px, 0), 1) for x in box[0::2])
        top, bottom = (100 * min(max(y / self.height_px, 0), 1) for y in box[1::2])
        return left, top, right - left, bottom - top


def thumbnail(path: str) -> Thumbnail | None:
    """A picture at most LONGER_SIDE_PX on its longer side, upright.

    None where it cannot be read, since a report on a thousand images should not fail over one.
    """
    try:
        with open_image(Path(path)) as stream:
            small = reduced(stream)
    except ImageError:
        return None
    if small is None:
        return None
    jpeg, width, height = small
    return Thumbnail("data:image/jpeg;base64," + base64.b64encode(jpeg).decode(), width, height)


def reduced(stream: IO[bytes]) -> tuple[bytes, int, int] | None:
    """The bytes of `thumbnail`'s JPEG, with the width and height in pixels of the upright original."""
    try:
        with Image.open(stream, formats=FORMATS) as image:
            width, height = image.size
            if image.getexif().get(ORIENTATION, 1) >= FIRST_SIDEWAYS:
                width, height = height, width
            image.draft("RGB", (2 * LONGER_SIDE_PX, 2 * LONGER_SIDE_PX))  # JPEG decodes at a fraction of its size
            small = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises for bad files
        return None
    small.thumbnail((LONGER_SIDE_PX, LONGER_SIDE_PX), Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=QUALITY)
    return jpeg.getvalue(), width, height
