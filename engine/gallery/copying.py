"""Copies of images from one gallery into another: merging of equal galleries, and conversion of the maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from operator import eq
from pathlib import Path

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.map_codecs import FIT_IMAGES, MapCodec, Score, open_codec
from cvnet_engine.engine.gallery.shards import FileStamp, ImageRows
from cvnet_engine.engine.gallery.walk import Intact, walk
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.geometry import format_scales


@dataclass
class CopyReport:
    """Result of a copy: numbers of images, and the reason for each damaged image or shard that was left out."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    damaged: dict[Path, str] = field(default_factory=dict)


def merge(
    source: Path,
    info: GalleryInfo,
    writer: GalleryWriter,
    report: CopyReport,
    done: Callable[[int], None] = lambda _: None,
) -> None:
    """Copy all images that the writer's gallery lacks or has from an older version of the file; otherwise as `copy`."""
    copy(source, info, writer, report, lambda stored, found: stored.mtime_ns >= found.mtime_ns, done=done)


def convert(
    source: Path,
    info: GalleryInfo,
    writer: GalleryWriter,
    report: CopyReport,
    done: Callable[[int], None] = lambda _: None,
    score: Score | None = None,
) -> None:
    """Copy all images that the writer's gallery lacks or has in another version, encoding maps with its codec.

    If the codec is not fitted yet, it is fitted to the first images; `score` then measures the change of pair scores.
    Otherwise as `copy`.
    """
    codec = open_codec(info.maps, source, info.code)
    if writer.needs_fit:
        intact = (found for found in walk(source, info) if isinstance(found, Intact))
        if first := [features(found, codec) for found in islice(intact, FIT_IMAGES)]:
            writer.fit(first, score)

    def encoded(rows: ImageRows) -> ImageRows:
        maps = [
            (scale, channels, *size, writer.codec.encode(scale, codec.decode(scale, data, *size)))
            for scale, channels, *size, data in rows["maps"]
        ]
        return {**rows, "maps": maps}

    copy(source, info, writer, report, eq, encoded, done)


def features(found: Intact, codec: MapCodec) -> Features:
    maps = (codec.decode(scale, data, *size) for scale, _, *size, data in found.rows["maps"])
    return Features(found.image.descriptor, tuple(maps))


def copy(
    source: Path,
    info: GalleryInfo,
    writer: GalleryWriter,
    report: CopyReport,
    is_current: Callable[[FileStamp, FileStamp], bool],
    convert_rows: Callable[[ImageRows], ImageRows] = lambda rows: rows,
    done: Callable[[int], None] = lambda _: None,
) -> None:
    """Copy the images of a gallery, one transaction per image. An interrupted copy can be repeated.

    `report` is updated and `done(1)` is called after each image.

    Args:
        is_current: takes the stamps of a file in the writer's gallery and in the source; True if the former is kept.
        convert_rows: converts the rows of an image before they are stored.

    Raises:
        GalleryError: the writer's gallery cannot be written, for instance because the disk is full.
    """
    for found in walk(source, info):
        if isinstance(found, Intact):
            path = found.image.path
            known, stored = path in writer, writer.stamp(path)
            if stored and is_current(stored, found.image.stamp):
                report.unchanged += 1
            else:
                writer.store(found.image, convert_rows(found.rows))
                report.updated += known
                report.added += not known
        else:
            report.damaged[found.path] = found.reason
        done(1)


def require_equal_settings(galleries: dict[Path, GalleryInfo]) -> None:
    """Raise GalleryError unless all galleries have the same model, image size limit, scales and storage of maps."""
    (first, expected), *others = galleries.items()
    for path, info in others:
        for what, mine, theirs in (
            ("model", f"{expected.weights}, {expected.features_id[:12]}", f"{info.weights}, {info.features_id[:12]}"),
            ("--max-side", expected.max_side_px or 0, info.max_side_px or 0),
            ("--scales", format_scales(expected.scales), format_scales(info.scales)),
            ("--maps", f"{expected.maps} {expected.code[:12]}", f"{info.maps} {info.code[:12]}"),
        ):
            if mine != theirs:
                raise GalleryError(
                    f"{path}: made with another {what} ({theirs}) than {first} ({mine}); only galleries with equal "
                    "settings can be merged: index its images into the other"
                )
