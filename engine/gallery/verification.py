"""Verification of everything that a gallery stores, and removal of damaged images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.ann_file import ANN, AnnFile
from cvnet_engine.engine.gallery.columns import Columns, columns_file, open_columns
from cvnet_engine.engine.gallery.info import GalleryInfo, read_info
from cvnet_engine.engine.gallery.shards import connect, leave_note, read_contents, shard_files, translated_errors
from cvnet_engine.engine.gallery.walk import Whole, walk
from cvnet_engine.engine.gallery.writer import GalleryWriter


@dataclass
class Verification:
    """Result of verification: number of undamaged images, and the reason for each damaged image or file."""

    whole: int = 0
    damaged: dict[Path, str] = field(default_factory=dict)


def verify(path: Path, done: Callable[[int], None] = lambda _: None) -> Verification:
    """Read and check everything that a gallery stores; mark it as damaged for the next writer if necessary.

    Raises:
        GalleryError: the folder is not a gallery.
    """
    found = Verification()
    info = read_info(path)
    for image in walk(path, info):
        if isinstance(image, Whole):
            found.whole += 1
        else:
            found.damaged[image.path] = image.reason
        done(1)
    found.damaged |= damaged_columns(path, info)
    if found.damaged:
        leave_note(path)
    return replace(found, damaged=found.damaged | damaged_index(path))


def damaged_columns(path: Path, info: GalleryInfo) -> dict[Path, str]:
    """Return the columns files with a damaged descriptor, and why; the next writer rewrites them."""
    found = {}
    for file in filter(Path.exists, shard_files(path, info.shards)):
        try:
            with contextlib.closing(connect(file, readonly=True)) as shard, translated_errors(file):
                columns = open_columns(file, read_contents(shard)) or Columns.of_images([])
            for place in range(len(columns)):
                columns.require_descriptor(place)
        except GalleryError:  # the damaged shard is reported already
            continue
        except ValueError as error:
            found[columns_file(file)] = str(error)
    return found


def damaged_index(path: Path) -> dict[Path, str]:
    """Return the approximate index if it is damaged, and why; search is exact without it."""
    try:
        AnnFile.load(path)
    except GalleryError as error:
        return {path / ANN: str(error)}
    return {}


def repair(path: Path) -> list[str]:
    """Remove damaged images, so that the rest can be searched and `index` adds those images again.

    The gallery is checked again under the writer's lock, so images repaired since verification are kept.

    Returns:
        One short text per repair.

    Raises:
        GalleryError: another process is writing to the gallery, or a shard is not a database.
    """
    leave_note(path)
    with GalleryWriter.reopen(path) as writer:
        writer.remove(writer.damaged)
        useless = damaged_index(path)
        for file in useless:
            file.unlink(missing_ok=True)
        return [*writer.repairs, *(f"{file.name} was damaged" for file in useless)]
