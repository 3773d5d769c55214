"""Whether everything in a gallery is as it was written; and taking out what is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from engine.gallery.info import read_info
from engine.gallery.shards import leave_note
from engine.gallery.walk import Whole, walk
from engine.gallery.writer import GalleryWriter


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
    for image in walk(path, read_info(path)):
        if isinstance(image, Whole):
            found.whole += 1
        else:
            found.damaged[image.path] = image.reason
        done(1)
    if found.damaged:
        leave_note(path)
    return found


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
        return writer.repairs
