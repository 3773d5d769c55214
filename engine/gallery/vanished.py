"""Images whose files have vanished: deleted, or on a disk that is not there at the moment?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Vanished:
    """What has become of images that are not where they were.

    Attributes:
        deleted: gone from a folder that is there.
        doubtful: gone with all that the gallery has from there, by the nearest folder that is left.
        unknown: neither there nor gone, as on a disk that does not answer, and why.
    """

    deleted: list[Path]
    doubtful: dict[Path, list[Path]]
    unknown: dict[Path, str]


def vanished(paths: Iterable[Path]) -> Vanished:
    """Look for every file.

    A file counts as deleted where the nearest folder that is left above it still has an image of the gallery, its own
    or further below, on the folder's own disk. Nothing else tells a deleted folder from a disk that is not mounted,
    whose mount point is an empty folder, or none.
    """
    gone: list[Path] = []
    unknown: dict[Path, str] = {}
    living: set[Path] = set()  # folders of images that are there
    for path in paths:
        try:
            path.stat()
            living.add(path.parent)
        except (FileNotFoundError, NotADirectoryError):
            gone.append(path)
        except OSError as error:
            unknown[path] = error.strerror or str(error)
    evidence = {(above, disk(folder)) for folder in living for above in (folder, *folder.parents)}
    left = {folder: nearest(folder) for folder in {path.parent for path in gone}}
    deleted: list[Path] = []
    doubtful: dict[Path, list[Path]] = defaultdict(list)
    for path in gone:
        folder = left[path.parent]
        if folder != Path(folder.anchor) and (folder, disk(folder)) in evidence:
            deleted.append(path)
        else:
            doubtful[folder].append(path)
    return Vanished(deleted, dict(doubtful), unknown)


def nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(above for above in (folder, *folder.parents) if above.is_dir())


def disk(folder: Path) -> int:
    """What the file system is known by, -1 for one that has gone since."""
    try:
        return folder.stat().st_dev
    except OSError:
        return -1
