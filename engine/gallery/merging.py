"""Galleries of one making into one."""

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
    """What became of the images that were merged: counts, and by path the reason of what was damaged and left out."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    damaged: dict[Path, str] = field(default_factory=dict)


def merge(
    source: Path, info: GalleryInfo, writer: GalleryWriter, report: Merge, done: Callable[[int], None] = lambda _: None
) -> None:
    """Copy what a gallery has that the writer's has not, or has of an older file, row for row; as `copy` else."""
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
    """Copy images of a gallery, a transaction each; those that are there already are left where they serve.

    What was copied before a kill is unchanged the next time. `report` is kept current, `done(1)` called after each.

    Args:
        serves: whether what the writer's gallery has of a file will do for what the source has of it.
        rows: an image's rows in the source -> those that are stored.

    Raises:
        GalleryError: the writer's gallery cannot be written, for instance on a full disk.
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
    """Raise GalleryError where two galleries were not made by one model, image size, scales and kind of maps."""
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
