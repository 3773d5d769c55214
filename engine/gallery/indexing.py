"""Indexing: every image of a list into a gallery, each once, resumable at any point."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from engine.contract import Array
from engine.errors import ImageError
from engine.exif import Block, Shot
from engine.features import Features
from engine.files import absolute, kind
from engine.gallery.map_codec import decode_map, encode_map
from engine.gallery.shards import FileStamp
from engine.gallery.writer import GalleryWriter
from engine.images import FOREIGN, SUFFIXES, decode, limit_side, read_bytes, read_exif, unread
from engine.retrieval.retriever import Retriever

DRIFT_SAMPLE = 8  # images that the cost of 8-bit maps is measured on
READERS, AHEAD = 2, 4  # threads that read and decode, and images they may be ahead of the engine


@dataclass
class IndexReport:
    """What became of each image: `added`, `updated` (its content changed) and `unchanged` counts, failures by path.

    `skipped` are files that were not taken for images, and why; `score_drift` is what 8-bit maps do to pair scores,
    measured on the first images.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: dict[Path, str] = field(default_factory=dict)
    skipped: dict[Path, str] = field(default_factory=dict)
    score_drift: float | None = None

    @property
    def usable(self) -> int:
        """Images of the list that are in the gallery now."""
        return self.added + self.updated + self.unchanged


@dataclass(frozen=True)
class Loaded:
    """A file as read: its stamp, what its EXIF says, and its image where it has to be extracted."""

    stamp: FileStamp
    shot: Shot
    image: Array | None


def index(
    paths: Iterable[Path],
    retriever: Retriever,
    writer: GalleryWriter,
    max_side_px: int | None,
    report: IndexReport,
    done: Callable[[Path], None] = lambda _: None,
) -> None:
    """Bring the gallery up to date with the files, in their order; `report` is kept current, `done` called after each.

    Raises:
        GalleryError: the gallery cannot be written, for instance on a full disk. An unreadable image is no
            error, nor is one that is too much for the memory; it goes to the report.
    """
    sample: list[Features] = []
    for path, loaded in read_ahead(paths, writer, max_side_px):
        try:
            file = loaded.result()
            if file is None:
                report.unchanged += 1
            elif file.image is None:
                writer.touch(path, file.stamp, file.shot)
                report.unchanged += 1
            else:
                known = path in writer
                features = retriever.extract(file.image)
                writer.put(path, file.stamp, features, file.shot)
                sample += [features] if len(sample) < DRIFT_SAMPLE else []
                report.updated += known
                report.added += not known
        except ImageError as error:
            report.failed[path] = str(error)
        except MemoryError:
            report.failed[path] = "out of memory; a smaller --max-side needs less, else shrink it first"
        done(path)
    if writer.info.maps == "int8" and sample:
        report.score_drift = score_drift(retriever, sample)


def score_drift(retriever: Retriever, sample: Sequence[Features]) -> float:
    """The largest change of a pair score when the key's maps go through 8 bits, each image with itself and the next."""
    drifts = []
    for number, query in enumerate(sample):
        for key in sample[number : number + 2]:
            stored = Features(
                key.descriptor, tuple(decode_map(encode_map(m, "int8"), m.shape, "int8") for m in key.maps)
            )
            scores = [retriever.score(query, [features])[0] for features in (key, stored)]
            drifts.append(abs(float(scores[0] - scores[1])))
    return max(drifts)


def read_ahead(
    paths: Iterable[Path], writer: GalleryWriter, max_side_px: int | None
) -> Iterator[tuple[Path, Future[Loaded | None]]]:
    """Files read and decoded in the background, yielded in order."""
    with ThreadPoolExecutor(READERS) as pool:
        waiting: deque[tuple[Path, Future[Loaded | None]]] = deque()
        try:
            for path in paths:
                known, dated = writer.stamp(path), writer.is_dated(path)
                waiting.append((path, pool.submit(load, path, known, dated, max_side_px)))
                if len(waiting) > AHEAD:
                    yield waiting.popleft()
            yield from waiting
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def load(path: Path, known: FileStamp | None, dated: bool, max_side_px: int | None) -> Loaded | None:
    """The file, or None where size and time say that it has not changed and its EXIF has been looked at.

    Raises:
        ImageError: the file cannot be read or is no usable image.
    """
    try:
        status = path.stat()
        if known and dated and (status.st_size, status.st_mtime_ns) == (known.size, known.mtime_ns):
            return None
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror}); expected an image file") from error
    data = read_bytes(path)
    stamp = FileStamp(len(data), status.st_mtime_ns, hashlib.sha256(data).hexdigest())
    shot = Block(read_exif(data)).shot()
    if known and stamp.digest == known.digest:
        return Loaded(stamp, shot, None)
    return Loaded(stamp, shot, limit_side(decode(data), max_side_px))


@dataclass(frozen=True)
class Found:
    """Files of some sources: the images, and why every other one was passed over; absolute, in order, no doubles."""

    images: list[Path]
    skipped: dict[Path, str]


def find_images(sources: Iterable[Path]) -> list[Path]:
    """The images that `find` finds."""
    return find(sources).images


def find(sources: Iterable[Path]) -> Found:
    """Image files: each named file whatever its ending, each named folder searched throughout.

    Raises:
        ImageError: a source that does not exist or is neither file nor folder, or sources without a single image.
    """
    images: dict[Path, None] = {}
    skipped: dict[Path, str] = {}
    sources = list(sources)
    for source in sources:
        found = walk(source) if is_folder(source) else Found([source], {})
        images.update((absolute(file), None) for file in found.images)
        skipped.update((absolute(file), reason) for file, reason in found.skipped.items())
    if not images:
        listed = "".join(f"; {count} passed over: {reason}" for reason, count in Counter(skipped.values()).items())
        raise ImageError(f"{', '.join(map(str, sources))}: no images; expected {', '.join(SUFFIXES)}{listed}")
    return Found(list(images), {file: reason for file, reason in skipped.items() if file not in images})


def is_folder(source: Path) -> bool:
    """Whether a source is a folder rather than a file.

    Raises:
        ImageError: it is neither, or not there.
    """
    expected = "expected an image file or a folder of them"
    try:
        mode = source.stat().st_mode
    except OSError as error:
        raise ImageError(f"{source}: {error.strerror}; {expected}") from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise ImageError(f"{source}: {kind(mode)}; {expected}")
    return stat.S_ISDIR(mode)


def walk(folder: Path) -> Found:
    """Files in a folder and those below it, but for folders that are hidden or linked, which are passed over whole."""
    images: list[Path] = []
    skipped: dict[Path, str] = {}
    folders = [folder]
    while folders:
        parent = folders.pop()
        try:
            entries = list(os.scandir(parent))
        except OSError as error:
            skipped[parent] = f"cannot be read ({error.strerror})"
            continue
        for entry in entries:
            path = Path(entry.path)
            if reason := objection(entry):
                skipped[path] = reason
            else:
                (folders if entry.is_dir() else images).append(path)
    return Found(sorted(images), dict(sorted(skipped.items())))


def objection(entry: os.DirEntry[str]) -> str | None:
    """Why an entry of a folder is passed over; None for an image and for a folder to search."""
    if entry.name.startswith("."):
        return "hidden"
    try:
        if entry.is_dir():
            return "a link to a folder" if entry.is_symlink() else None
        if not entry.is_file():
            return kind(entry.stat().st_mode)
    except OSError as error:  # a broken link
        return f"cannot be read ({error.strerror})"
    suffix = Path(entry.name).suffix.lower()
    if suffix in FOREIGN:
        return unread(FOREIGN[suffix])
    return None if suffix in SUFFIXES else "not an image by its name"
