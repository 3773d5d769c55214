"""Merging of galleries that have the same settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.shards import Belongings, FileStamp
from cvnet_engine.engine.gallery.walk import Whole, walk
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.geometry import format_scales


@dataclass
class Merge:
    """Result of a merge: numbers of images, and the reason for each damaged image or shard that was left out."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    damaged: dict[Path, str] = field(default_factory=dict)


def merge(
    source: Path, info: GalleryInfo, writer: GalleryWriter, report: Merge, done: Callable[[int], None] = lambda _: None
) -> None:
    """Copy all images that the writer's gallery lacks or has from an older version of the file; otherwise as `copy`."""
    copy(source, info, writer, report, lambda held, found: held.mtime_ns >= found.mtime_ns, done=done)


def copy(
    source: Path,
    info: GalleryInfo,
    writer: GalleryWriter,
    report: Merge,
    serves: Callable[[FileStamp, FileStamp], bool],
    rows: Callable[[Belongings], Belongings] = lambda belongings: belongings,
    done: Callable[[int], None] = lambda _: None,
) -> None:
    """Copy the images of a gallery, one transaction per image. An interrupted copy can be repeated.

    `report` is updated and `done(1)` is called after each image.

    Args:
        serves: takes the stamps of a file in the writer's gallery and in the source; True if the former is kept.
        rows: converts the rows of an image before they are stored.

    Raises:
        GalleryError: the writer's gallery cannot be written, for instance because the disk is full.
    """
    for found in walk(source, info):
        if not isinstance(found, Whole):
            report.damaged[found.path] = found.reason
        else:
            image = found.image
            known, held = image.path in writer, writer.stamp(image.path)
            if held and serves(held, image.stamp):
                report.unchanged += 1
            else:
                writer.store(image, rows(found.belongings))
                report.updated += known
                report.added += not known
        done(1)


def require_one_making(galleries: dict[Path, GalleryInfo]) -> None:
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
                    f"{path}: made with another {what} ({theirs}) than {first} ({mine}); only galleries of one making "
                    "can be merged: index its images into the other"
                )
