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
    """How many images are whole; of what is not, by path of the image or the shard, the reason."""

    whole: int = 0
    damaged: dict[Path, str] = field(default_factory=dict)


def verify(path: Path, done: Callable[[int], None] = lambda _: None) -> Verification:
    """Read every row of a gallery; damage is noted for the next writer, as by any reader that meets it.

    Raises:
        GalleryError: no gallery there.
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
    """Files of columns in which a descriptor is another than its row says, and why; the next writer makes them anew."""
    found = {}
    for file in filter(Path.exists, shard_files(path, info.shards)):
        try:
            with contextlib.closing(connect(file, readonly=True)) as shard, translated_errors(file):
                columns = open_columns(file, read_contents(shard)) or Columns.of_images([])
            for place in range(len(columns)):
                columns.require_descriptor(place)
        except GalleryError:  # the shard itself is named already
            continue
        except ValueError as error:
            found[columns_file(file)] = str(error)
    return found


def damaged_index(path: Path) -> dict[Path, str]:
    """The approximate index where it is not as it was written, and why; the shards do without it."""
    try:
        AnnFile.load(path)
    except GalleryError as error:
        return {path / ANN: str(error)}
    return {}


def repair(path: Path) -> list[str]:
    """Take out what is damaged, so that the rest can be searched and `index` takes those images in anew.

    The gallery is read once more, with no other writer in the way: what has been mended since it was verified stays.

    Returns:
        What was done, in a few words each.

    Raises:
        GalleryError: another writer holds the gallery, or a shard is no database any more.
    """
    leave_note(path)
    with GalleryWriter.reopen(path) as writer:
        writer.remove(writer.damaged)
        useless = damaged_index(path)
        for file in useless:
            file.unlink(missing_ok=True)
        return [*writer.repairs, *(f"{file.name} was damaged" for file in useless)]
