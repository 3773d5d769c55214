"""Parts: slices of an image list, each indexed into a small gallery that is then copied into the target gallery.

Many processes can index parts at the same time, on all machines that share the gallery's folder. Both steps can be
interrupted at any moment: an unfinished part is resumed by the next process that takes it, and a finished part is
never changed, and is deleted only after all of its images are in the target gallery.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cvnet_engine.engine import typed_json
from cvnet_engine.engine.errors import GalleryError, one_line
from cvnet_engine.engine.files import read_text, write_atomically
from cvnet_engine.engine.gallery.indexing import IndexReport, index
from cvnet_engine.engine.gallery.info import INFO, GalleryInfo, read_info
from cvnet_engine.engine.gallery.learnt_codec import LearntCodec
from cvnet_engine.engine.gallery.shards import shard_files
from cvnet_engine.engine.gallery.walk import Whole, walk
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.geometry import IMAGE_SCALES
from cvnet_engine.engine.retrieval.engines import Engines

PARTS = "parts"  # folder in a gallery
MADE = "made.json"  # in the folder of a finished part
IMAGES_PER_PART = 64  # about a minute of work for a worker


@dataclass(frozen=True)
class Part:
    """Images that are indexed together, and the folder of their small gallery."""

    folder: Path
    paths: tuple[Path, ...]

    @property
    def gallery(self) -> Path:
        """Folder of the target gallery."""
        return self.folder.parent.parent

    @property
    def is_made(self) -> bool:
        """True if the part is finished and covers all of `paths`.

        A part finished by an earlier run can lack images that were in the target gallery at that time.

        Raises:
            GalleryError: the part's record is damaged.
        """
        return (self.folder / MADE).exists() and set(read_made(self).images).issuperset(map(str, self.paths))


@dataclass(frozen=True)
class Made:
    """Record of a finished part: its images, and a reason per image that could not be read."""

    images: tuple[str, ...]
    failed: dict[str, str]


def cut(
    paths: Sequence[Path],
    wanted: Collection[Path],
    gallery: Path,
    info: GalleryInfo,
    images: int = IMAGES_PER_PART,
) -> list[Part]:
    """Cut a list into parts of `images` images each, then leave out the images that are not in `wanted`.

    The folder of a part depends only on the list and the gallery's settings, so a later run finds unfinished parts.
    """
    stretches = (paths[start : start + images] for start in range(0, len(paths), images))
    return [
        Part(folder_of(stretch, gallery, info), tuple(path for path in stretch if path in wanted))
        for stretch in stretches
    ]


def folder_of(paths: Iterable[Path], gallery: Path, info: GalleryInfo) -> Path:
    scales = () if info.scales == IMAGE_SCALES else map(str, info.scales)
    made_with = (info.features_id, str(info.max_side_px), info.maps, info.code, *scales)
    names = b"\0".join([*map(str.encode, made_with), *map(os.fsencode, paths)])
    return gallery / PARTS / hashlib.sha256(names).hexdigest()[:32]


def make(part: Part, info: GalleryInfo, engines: Engines) -> None:
    """Index a part, or the rest of it.

    Raises:
        GalleryInUseError: another process is indexing it.
        GalleryError: the disk is full.
    """
    report = IndexReport()
    with GalleryWriter(part.folder, replace(info, code="")) as writer:
        if writer.is_unlearnt:
            writer.keep_maps_by(LearntCodec.load(part.gallery, info.code), info.fidelity)
        index(part.paths, engines, writer, info.max_side_px, report)
    made = Made(tuple(map(str, part.paths)), {str(path): reason for path, reason in report.failed.items()})
    write_atomically(part.folder / MADE, json.dumps(vars(made)))


def take_in(part: Part, writer: GalleryWriter, report: IndexReport) -> None:
    """Copy a finished part into the gallery, delete its folder, and add its images to the report.

    Raises:
        GalleryError: the part is damaged, or the gallery cannot be written.
    """
    for found in walk(part.folder, read_info(part.folder)):
        if not isinstance(found, Whole):
            raise GalleryError(
                f"{part.folder}: {found.path} is damaged ({found.reason}); remove this folder and run the command again"
            )
        path, stamp = found.image.path, found.image.stamp
        if path not in part.paths:  # already in the gallery
            continue
        known, held = path in writer, writer.stamp(path)
        same = held is not None and held.digest == stamp.digest  # for instance copied before a kill
        if held != stamp or not writer.is_dated(path):
            writer.store(found.image, found.belongings)
        report.unchanged += same
        report.updated += known and not same
        report.added += not known
    failed = {Path(path): reason for path, reason in read_made(part).failed.items()}
    report.failed |= {path: reason for path, reason in failed.items() if path in part.paths}
    discard(part)


def discard(part: Part) -> None:
    """Delete the folder of a part, its record first, so that after a kill the rest counts as unfinished."""
    if part.folder.exists():
        for file in (part.folder / MADE, *shard_files(part.folder, recorded=0), part.folder / INFO):
            file.unlink(missing_ok=True)
        shutil.rmtree(part.folder)


def read_made(part: Part) -> Made:
    file = part.folder / MADE
    try:
        return typed_json.parse(read_text(file), Made)
    except (OSError, ValueError) as error:
        raise GalleryError(
            f"{file}: not readable ({one_line(error)}); remove its folder and run the command again"
        ) from error


def stale(
    paths: Iterable[Path], writer: GalleryWriter, report: IndexReport, done: Callable[[Path], None]
) -> list[Path]:
    """Return the images that must be indexed: missing from the gallery, changed, or with EXIF metadata not yet read.

    A file counts as changed if its size or modification time differs. The other images are added to the report as
    unchanged, and `done` is called after each.
    """
    found = []
    for path in paths:
        known = writer.stamp(path)
        try:
            unchanged = known is not None and known.fits(path.stat())
        except OSError:  # the worker that indexes its part reports the error
            unchanged = False
        if unchanged and writer.is_dated(path):
            report.unchanged += 1
            done(path)
        else:
            found.append(path)
    return found
