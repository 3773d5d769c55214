"""Missing files of a gallery's images: deleted ones, and ones that may be on a disk that is not mounted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Vanished:
    """Missing files of a gallery.

    Attributes:
        deleted: missing from a folder where other images of the gallery still exist.
        doubtful: missing together with all other images there, by nearest existing folder; maybe an unmounted disk.
        unknown: files that could not be checked, for instance because the disk does not respond, and why.
    """

    deleted: list[Path]
    doubtful: dict[Path, list[Path]]
    unknown: dict[Path, str]


def vanished(paths: Iterable[Path]) -> Vanished:
    """Check every file and classify the missing ones.

    A missing file counts as deleted if its nearest existing parent folder still contains an image of the gallery,
    directly or in a subfolder, on the same disk. Otherwise its disk may just not be mounted: the mount point is then
    empty or missing.
    """
    gone: list[Path] = []
    unknown: dict[Path, str] = {}
    living: set[Path] = set()  # folders of existing images
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
    """Return the folder, or its nearest existing parent."""
    return next(above for above in (folder, *folder.parents) if above.is_dir())


def disk(folder: Path) -> int:
    """Return the device number of a folder; -1 if it does not exist."""
    try:
        return folder.stat().st_dev
    except OSError:
        return -1
