"""What made a gallery, kept in its `gallery.json`; only features of equal making can be mixed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import GalleryError
from engine.files import write_atomically
from engine.gallery.map_codec import MAP_TYPES

FORMAT = 1
INFO = "gallery.json"


@dataclass(frozen=True)
class GalleryInfo:
    """What a gallery's features were made with; only equal ones can be mixed.

    `features_id` is `Manifest.features_id`, `max_side_px` the limit on an image's longer side before extraction,
    `maps` one of `MAP_TYPES`.
    """

    format: int
    features_id: str
    weights: str
    max_side_px: int | None
    maps: str = "float16"


def read_info(path: Path) -> GalleryInfo:
    file = path / INFO
    try:
        content = json.loads(file.read_text())
        if content["format"] != FORMAT:
            raise GalleryError(
                f"{path}: gallery of format {content['format']}; expected {FORMAT}: index the images again"
            )
        info = GalleryInfo(**content)
        if info.maps not in MAP_TYPES:
            raise ValueError(f"maps {info.maps!r}")
        return info
    except (FileNotFoundError, NotADirectoryError) as error:
        raise GalleryError(f"{path}: not a gallery (no {INFO}); make one with 'cvnet-engine index'") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise GalleryError(f"{file}: not readable ({error}); expected a gallery of format {FORMAT}") from error


def write_info(path: Path, info: GalleryInfo) -> None:
    write_atomically(path / INFO, json.dumps(asdict(info), indent=2) + "\n")


def map_type_of(path: Path) -> str:
    """One of `MAP_TYPES`: that of a gallery which is there, the default for a new one."""
    return read_info(path).maps if (path / INFO).exists() else MAP_TYPES[0]


def require_equal(gallery: GalleryInfo, wanted: GalleryInfo, path: Path) -> None:
    """Raise GalleryError where features of `wanted` would not belong beside the gallery's."""
    if gallery.features_id != wanted.features_id:
        raise GalleryError(
            f"{path}: made with another model ({gallery.weights}, {gallery.features_id[:12]}); the bundle has "
            f"{wanted.weights}, {wanted.features_id[:12]}: use the bundle it was made with, or another --gallery"
        )
    if gallery.max_side_px != wanted.max_side_px:
        raise GalleryError(
            f"{path}: made with --max-side {gallery.max_side_px or 0}; got {wanted.max_side_px or 0}: "
            "use the same, or another --gallery"
        )
    if gallery.maps != wanted.maps:
        raise GalleryError(f"{path}: keeps maps as {gallery.maps}; got --maps {wanted.maps}: use another --gallery")
