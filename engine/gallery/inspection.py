"""Inspection of a gallery: statistics, verification and repair, and images whose files are missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.ann_file import ANN, AnnFile
from cvnet_engine.engine.gallery.columns import Columns, columns_file, open_columns
from cvnet_engine.engine.gallery.info import GalleryInfo, read_info
from cvnet_engine.engine.gallery.shards import mark_damaged, read_contents, reading, shard_files
from cvnet_engine.engine.gallery.walk import Intact, walk
from cvnet_engine.engine.gallery.writer import GalleryWriter


@dataclass(frozen=True)
class Statistics:
    """Statistics of a gallery.

    Attributes:
        stored_bytes: size of all files of the gallery.
        free_bytes: part of it that removed images have left unused; `compact` frees it.
        changed: time at which a shard was last written.
    """

    images: int
    shards: int
    stored_bytes: int
    free_bytes: int
    changed: datetime


def read_statistics(path: Path, info: GalleryInfo) -> Statistics:
    """Compute the statistics of a gallery without reading features.

    Raises:
        GalleryError: a shard is missing or cannot be read.
    """
    images = free_bytes = 0
    shards = shard_files(path, info.shards)
    for file in shards:
        with reading(file) as shard:
            images += shard.execute("SELECT count(*) FROM images").fetchone()[0]
            (pages,), (page_bytes,) = (
                shard.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_size")
            )
            free_bytes += pages * page_bytes
    written = [file.stat().st_mtime for file in shards] or [path.stat().st_mtime]
    changed = datetime.fromtimestamp(max(written), UTC)
    return Statistics(images, len(shards), sum(map(size, path.iterdir())), free_bytes, changed)


def size(file: Path) -> int:
    """Return the size of a file in bytes; 0 if it is gone, because SQLite's last reader deletes its log."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


# ----------------------------------------------------------------------------------------------------- verification


@dataclass
class Verification:
    """Result of verification: number of undamaged images, and the reason for each damaged image or file."""

    intact: int = 0
    damaged: dict[Path, str] = field(default_factory=dict)


def verify(path: Path, done: Callable[[int], None] = lambda _: None) -> Verification:
    """Read and check everything that a gallery stores; mark it as damaged for the next writer if necessary.

    Raises:
        GalleryError: the folder is not a gallery.
    """
    result = Verification()
    info = read_info(path)
    for found in walk(path, info):
        if isinstance(found, Intact):
            result.intact += 1
        else:
            result.damaged[found.path] = found.reason
        done(1)
    result.damaged |= damaged_columns(path, info)
    if result.damaged:
        mark_damaged(path)
    return replace(result, damaged=result.damaged | damaged_index(path))


def damaged_columns(path: Path, info: GalleryInfo) -> dict[Path, str]:
    """Return the columns files with a damaged descriptor, and why; the next writer rewrites them."""
    found = {}
    for file in shard_files(path, info.shards):
        try:
            with reading(file) as shard:
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
    mark_damaged(path)
    with GalleryWriter.reopen(path) as writer:
        writer.remove(writer.damaged)
        useless = damaged_index(path)
        for file in useless:
            file.unlink(missing_ok=True)
        return [*writer.repairs, *(f"{file.name} was damaged" for file in useless)]


# ----------------------------------------------------------------------------------------------------- missing files


@dataclass(frozen=True)
class MissingFiles:
    """Images of a gallery whose files are missing.

    Attributes:
        deleted: missing from a folder where other images of the gallery still exist.
        doubtful: missing together with all other images there, by nearest existing folder; maybe an unmounted disk.
        unknown: files that could not be checked, for instance because the disk does not respond, and why.
    """

    deleted: list[Path]
    doubtful: dict[Path, list[Path]]
    unknown: dict[Path, str]


def find_missing(paths: Iterable[Path]) -> MissingFiles:
    """Check every file and classify the missing ones.

    A missing file counts as deleted if its nearest existing parent folder still contains an image of the gallery,
    directly or in a subfolder, on the same disk. Otherwise its disk may just not be mounted: the mount point is then
    empty or missing.
    """
    missing: list[Path] = []
    unknown: dict[Path, str] = {}
    used: set[Path] = set()  # folders of existing images
    for path in paths:
        try:
            path.stat()
            used.add(path.parent)
        except (FileNotFoundError, NotADirectoryError):
            missing.append(path)
        except OSError as error:
            unknown[path] = error.strerror or str(error)
    evidence = {(above, disk(folder)) for folder in used for above in (folder, *folder.parents)}
    nearest = {
        folder: next(above for above in (folder, *folder.parents) if above.is_dir())
        for folder in {path.parent for path in missing}
    }
    deleted: list[Path] = []
    doubtful: dict[Path, list[Path]] = defaultdict(list)
    for path in missing:
        folder = nearest[path.parent]
        if folder != Path(folder.anchor) and (folder, disk(folder)) in evidence:
            deleted.append(path)
        else:
            doubtful[folder].append(path)
    return MissingFiles(deleted, dict(doubtful), unknown)


def disk(folder: Path) -> int:
    """Return the device number of a folder; -1 if it does not exist."""
    try:
        return folder.stat().st_dev
    except OSError:
        return -1
