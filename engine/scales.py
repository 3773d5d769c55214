"""The scales at which an image is described: the published three, or fewer for less time."""

from __future__ import annotations

from collections.abc import Iterable

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.geometry import IMAGE_SCALES

Scales = tuple[float, ...]


def scales_wanted(scales: Iterable[float]) -> Scales:
    """Scales in ascending order, each once.

    Raises:
        GalleryError: one that is none of `IMAGE_SCALES`, or no 1, where the maps come from.
    """
    wanted = tuple(sorted(set(scales)))
    if 1 not in wanted or not set(wanted) <= set(IMAGE_SCALES):
        raise GalleryError(f"scales {shown(wanted)}: expected 1 and any others of {shown(IMAGE_SCALES)}")
    return wanted


def parse_scales(text: str) -> Scales:
    """`0.7071,1` as scales.

    Raises:
        GalleryError: anything but such numbers.
    """
    try:
        return scales_wanted(map(float, text.split(",")))
    except ValueError as error:
        raise GalleryError(f"scales {text!r}: expected numbers such as {shown(IMAGE_SCALES)}") from error


def shown(scales: Iterable[float]) -> str:
    """Scales as they are given on the command line."""
    return ",".join(f"{scale:g}" for scale in scales)
