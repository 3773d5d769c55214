"""Settings of a gallery, stored in `gallery.json`. All features of a gallery must have the same settings."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Self

from cvnet_engine.engine import typed_json
from cvnet_engine.engine.bundle import Manifest
from cvnet_engine.engine.errors import GalleryError, one_line
from cvnet_engine.engine.files import read_text, write_atomically
from cvnet_engine.engine.gallery.map_codecs import Fidelity, parse_kind
from cvnet_engine.engine.geometry import DESCRIPTOR_NAMES, IMAGE_SCALES, Scales, format_scales, require_scales

FORMAT = 3
INFO = "gallery.json"
MOST_SHARDS = 100_000  # their names have five digits


@dataclass(frozen=True)
class GalleryInfo:
    """Settings of a gallery and its number of shards.

    Attributes:
        features_id: `Manifest.features_id` of the bundle.
        weights: `Manifest.weights` of the bundle.
        max_side_px: limit on an image's longer side before extraction; None for no limit.
        maps: how feature maps are stored, see `engine.gallery.map_codecs`.
        shards: number of shards that may hold images.
        code: SHA-256 of the map compression's parameters; empty for float16, and until they are fitted.
        descriptor: one of `DESCRIPTOR_NAMES`.
        scales: image scales at which features are extracted, a subset of `IMAGE_SCALES`.
        fidelity: loss by compressed maps, measured on the images that the compression was fitted to; None if unknown.
    """

    format: int
    features_id: str
    weights: str
    max_side_px: int | None
    maps: str = "float16"
    shards: int = 0
    code: str = ""
    descriptor: str = "cvnet"
    scales: Scales = IMAGE_SCALES
    fidelity: Fidelity | None = None

    @classmethod
    def made_with(
        cls, manifest: Manifest, max_side_px: int | None, maps: str, scales: Scales = IMAGE_SCALES
    ) -> GalleryInfo:
        """Return the settings of a new gallery for a bundle."""
        return cls(FORMAT, "", "", max_side_px, maps, scales=scales).by(manifest)

    def by(self, manifest: Manifest) -> Self:
        """Return a copy with the model of a bundle."""
        return replace(
            self,
            features_id=manifest.features_id,
            weights=manifest.weights,
            descriptor=manifest.descriptor,
        )


@dataclass(frozen=True)
class StoredInfo(GalleryInfo):
    """The content of `gallery.json`: the settings and their checksum."""

    checksum: int = 0

    def unpacked(self) -> GalleryInfo:
        """Return the settings after checking their checksum.

        Raises:
            ValueError: the checksum differs.
        """
        if self.checksum != checksum(self):
            raise ValueError("checksum differs")
        return GalleryInfo(**{field.name: getattr(self, field.name) for field in fields(GalleryInfo)})


def checksum(info: GalleryInfo) -> int:
    """Return the CRC-32 of the settings that scores depend on, because an edited one would change scores silently."""
    code = [info.code] if info.code else []
    scales = [] if info.scales == IMAGE_SCALES else info.scales
    return zlib.crc32(json.dumps([info.features_id, info.max_side_px, info.maps, *code, *scales]).encode())


def read_info(path: Path) -> GalleryInfo:
    file = path / INFO
    try:
        info = typed_json.parse(read_text(file), StoredInfo)
        if info.format != FORMAT:
            raise ValueError(f"format is {info.format}")
        if not 0 <= info.shards <= MOST_SHARDS:
            raise ValueError(f"shards is {info.shards}; expected at most {MOST_SHARDS}")
        if parse_kind(info.maps) != info.maps:
            raise ValueError(f"maps is {info.maps!r}")
        if info.descriptor not in DESCRIPTOR_NAMES:
            raise ValueError(f"descriptor is {info.descriptor!r}; expected {' or '.join(DESCRIPTOR_NAMES)}")
        if require_scales(info.scales) != info.scales:
            raise ValueError(f"scales are {format_scales(info.scales)}; expected ascending ones")
        return info.unpacked()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise GalleryError(f"{path}: not a gallery (no {INFO}); make one with 'cvnet-engine index'") from error
    except OSError as error:
        raise GalleryError(f"{file}: not readable ({error.strerror}); check the folder and its disk") from error
    except (GalleryError, ValueError) as error:
        raise GalleryError(
            f"{file}: not of a gallery of format {FORMAT} ({one_line(error)}); index the images into a new gallery: "
            "'cvnet-engine index IMAGES --bundle BUNDLE --gallery NEW'"
        ) from error


def write_info(path: Path, info: GalleryInfo) -> None:
    content = asdict(info) | {"checksum": checksum(info)}
    write_atomically(path / INFO, json.dumps(content, indent=2) + "\n")


def require_equal(gallery: GalleryInfo, wanted: GalleryInfo, path: Path) -> None:
    """Raise GalleryError if features made with the settings `wanted` cannot be added to the gallery."""
    if gallery.descriptor != wanted.descriptor:
        raise GalleryError(
            f"{path}: has descriptors of {DESCRIPTOR_NAMES[gallery.descriptor]}; the bundle computes "
            f"{DESCRIPTOR_NAMES[wanted.descriptor]}'s: use the gallery's bundle, or another --gallery"
        )
    if gallery.features_id != wanted.features_id:
        raise GalleryError(
            f"{path}: made with another model ({gallery.weights}, {gallery.features_id[:12]}); the bundle has "
            f"{wanted.weights}, {wanted.features_id[:12]}: use the gallery's bundle, or another --gallery"
        )
    if gallery.max_side_px != wanted.max_side_px:
        raise GalleryError(
            f"{path}: made with --max-side {gallery.max_side_px or 0}; got {wanted.max_side_px or 0}: "
            "use the same, or another --gallery"
        )
    if gallery.scales != wanted.scales:
        raise GalleryError(
            f"{path}: made with --scales {format_scales(gallery.scales)}; got {format_scales(wanted.scales)}: "
            "use the same, or another --gallery"
        )
    if gallery.maps != wanted.maps:
        raise GalleryError(f"{path}: made with --maps {gallery.maps}; got {wanted.maps}: use another --gallery")
