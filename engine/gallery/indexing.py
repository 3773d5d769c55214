"""Indexing: extraction and storage of the features of a list of images; can be stopped and resumed at any point."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Semaphore

from cvnet_engine.engine.backends import usable_threads
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import ImageError
from cvnet_engine.engine.exif import Shot
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.files import absolute, kind
from cvnet_engine.engine.gallery.map_codecs import FIT_IMAGES, SCORED, Fidelity, Score, score_change
from cvnet_engine.engine.gallery.shards import FileStamp
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.images import EXPECTED, SUFFIXES, decode, limit_side, read_bytes, read_shot
from cvnet_engine.engine.photo_formats import missing
from cvnet_engine.engine.retrieval.engines import Engines, on_gpu

MOST_STREAMS = 4  # images extracted at once, each with 0.6 GB of memory at 1024x768 px in float32
READERS = 2  # additional threads, which read and decode so that no engine waits for an image


@dataclass
class IndexReport:
    """Result of indexing.

    Attributes:
        added, updated, unchanged: number of images; updated ones have new content.
        failed: images that could not be indexed, and why.
        skipped: files that were passed over, and why.
        score_drift: largest change of a pair score by compressed maps, measured on the last indexed images.
        fidelity: loss by compressed maps, measured on the gallery's first images.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: dict[Path, str] = field(default_factory=dict)
    skipped: dict[Path, str] = field(default_factory=dict)
    score_drift: float | None = None
    fidelity: Fidelity | None = None

    @property
    def usable(self) -> int:
        """Number of images of the list that are in the gallery."""
        return self.added + self.updated + self.unchanged


@dataclass(frozen=True)
class Seen:
    """A file that was read: its stamp, its EXIF metadata, and its features, None if its content is unchanged."""

    stamp: FileStamp
    exif: Shot
    features: Features | None


def index(
    paths: Iterable[Path],
    engines: Engines,
    writer: GalleryWriter,
    max_side_px: int | None,
    report: IndexReport,
    done: Callable[[Path], None] = lambda _: None,
) -> None:
    """Bring the gallery up to date with the files, in their order.

    `report` is updated and `done` is called after each image. An image that cannot be read, or that is too large for
    the memory, is added to `report.failed`.

    Raises:
        GalleryError: the gallery cannot be written, for instance because the disk is full.
    """
    assert engines.scales == writer.info.scales
    intake = Intake(writer, engines.score, report, done)
    for path, seen in look_ahead(paths, engines, writer, max_side_px):
        try:
            file = seen.result()
            if file is not None and file.features is not None:
                intake.add(Extracted(path, file.stamp, file.exif, file.features))
                continue
            if file is not None:
                writer.touch(path, file.stamp, file.exif)
            report.unchanged += 1
        except ImageError as error:
            report.failed[path] = str(error)
        except MemoryError:
            report.failed[path] = "out of memory; a smaller --max-side needs less, else shrink it first"
        done(path)
    intake.store()
    report.fidelity = writer.info.fidelity
    if writer.info.maps != "float16" and intake.last:
        report.score_drift = score_change(engines.score, writer.codec, list(intake.last)).largest


@dataclass(frozen=True)
class Extracted:
    """An image with extracted features, to be stored."""

    path: Path
    stamp: FileStamp
    exif: Shot
    features: Features


class Intake:
    """Queue in front of a gallery: holds the first images back until the map compression has been fitted to them.

    Attributes:
        last: features of the last `SCORED` images.
    """

    def __init__(self, writer: GalleryWriter, score: Score, report: IndexReport, done: Callable[[Path], None]) -> None:
        self._writer, self._score, self._report, self._done = writer, score, report, done
        self._waiting: deque[Extracted] = deque()
        self.last: deque[Features] = deque(maxlen=SCORED)

    def add(self, image: Extracted) -> None:
        self._waiting.append(image)
        self.last.append(image.features)
        if not self._writer.needs_fit or len(self._waiting) == FIT_IMAGES:
            self.store()

    def store(self) -> None:
        """Store all images in the queue."""
        if self._waiting and self._writer.needs_fit:
            self._writer.fit([image.features for image in self._waiting], self._score)
        while self._waiting:
            image = self._waiting.popleft()
            known = image.path in self._writer
            self._writer.put(image.path, image.stamp, image.features, image.exif)
            self._report.updated += known
            self._report.added += not known
            self._done(image.path)


def streams(bundle: Bundle, threads: int | None, max_side_px: int | None) -> int:
    """Return the number of images to extract at once.

    On a CPU, one thread per image is faster than all threads on one image. It is 1 on a GPU, and also without a size
    limit, because the memory per image is then unbounded.
    """
    if max_side_px is None or on_gpu(bundle):
        return 1
    return min(usable_threads(threads), MOST_STREAMS)


def look_ahead(
    paths: Iterable[Path], engines: Engines, writer: GalleryWriter, max_side_px: int | None
) -> Iterator[tuple[Path, Future[Seen | None]]]:
    """Read files and extract their features in a thread pool; yield the results in the order of `paths`."""
    turns = Semaphore(engines.streams)

    def describe(data: bytes) -> Features:
        image = limit_side(decode(data), max_side_px)
        with turns:
            return engines.extract(image)

    workers = engines.streams + READERS
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Path, Future[Seen | None]]] = deque()
        try:
            for path in paths:
                known = writer.stamp(path)
                exif_stored = known is not None and writer.has_exif(path)
                waiting.append((path, pool.submit(look, path, known, exif_stored, describe)))
                if len(waiting) > workers:
                    yield waiting.popleft()
            yield from waiting
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def look(path: Path, known: FileStamp | None, exif_stored: bool, describe: Callable[[bytes], Features]) -> Seen | None:
    """Read a file and extract its features if its content is new.

    Args:
        known: stamp of the file when it was indexed; None if its features must be extracted.
        exif_stored: its EXIF metadata is already in the gallery.
        describe: extracts features from the bytes of a file.

    Returns:
        None if size and modification time are unchanged and the EXIF metadata is in the gallery.

    Raises:
        ImageError: the file cannot be read or is not a usable image.
    """
    try:
        status = path.stat()
        if known and exif_stored and known.fits(status):
            return None
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror}); expected an image file") from error
    data = read_bytes(path)
    stamp = FileStamp(len(data), status.st_mtime_ns, hashlib.sha256(data).hexdigest())
    exif = read_shot(data)
    if known and stamp.digest == known.digest:
        return Seen(stamp, exif, None)
    return Seen(stamp, exif, describe(data))


@dataclass(frozen=True)
class Found:
    """Images found in the sources, and the reason for each skipped file; absolute unique paths, in order."""

    images: list[Path]
    skipped: dict[Path, str]


def find_images(sources: Iterable[Path]) -> list[Path]:
    """Return the images in the sources; raises as `find`."""
    return find(sources).images


@dataclass(frozen=True)
class Patterns:
    """Selection of files in a folder: those that match any of `include` (all if empty) and none of `exclude`.

    Shell patterns, matched against the file's name and against its path relative to the folder; `*` also matches `/`.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def objection(self, path: Path, folder: Path) -> str | None:
        """Return the reason for passing over a file of a folder; None if it is selected."""
        names = (path.name, str(path.relative_to(folder)))

        def match(patterns: tuple[str, ...]) -> bool:
            return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)

        if self.include and not match(self.include):
            return "not matched by --include"
        return "matched by --exclude" if match(self.exclude) else None


EVERYTHING = Patterns()


def find(sources: Iterable[Path], patterns: Patterns = EVERYTHING) -> Found:
    """Find the images in the sources. Files are taken whatever their suffix; folders are searched recursively.

    Raises:
        ImageError: a source does not exist or is neither a file nor a folder, or there is no image in the sources.
    """
    images: dict[Path, None] = {}
    skipped: dict[Path, str] = {}
    sources = list(sources)
    for source in sources:
        path = absolute(source)
        found = walk(path, patterns) if is_folder(source) else Found([path], {})
        images.update(dict.fromkeys(found.images))
        skipped.update(found.skipped)
    if not images:
        listed = "".join(f"; {count} passed over: {reason}" for reason, count in Counter(skipped.values()).items())
        raise ImageError(f"{', '.join(map(str, sources))}: no images; expected {EXPECTED}{listed}")
    return Found(list(images), {file: reason for file, reason in skipped.items() if file not in images})


def is_folder(source: Path) -> bool:
    """Return True for a folder, False for a file.

    Raises:
        ImageError: the source does not exist, or is neither.
    """
    expected = "expected an image file or a folder of them"
    try:
        mode = source.stat().st_mode
    except OSError as error:
        raise ImageError(f"{source}: {error.strerror}; {expected}") from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise ImageError(f"{source}: {kind(mode)}; {expected}")
    return stat.S_ISDIR(mode)


def walk(folder: Path, patterns: Patterns = EVERYTHING) -> Found:
    """Find the images in a folder and its subfolders, except hidden folders and links to folders."""
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
            reason = objection(entry)
            if reason is None and entry.is_dir():
                folders.append(path)
            elif reason := reason or patterns.objection(path, folder):
                skipped[path] = reason
            else:
                images.append(path)
    return Found(sorted(images), dict(sorted(skipped.items())))


def objection(entry: os.DirEntry[str]) -> str | None:
    """Return the reason for passing over a folder's entry; None for an image or a folder to search."""
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
    return missing(SUFFIXES[suffix]) if suffix in SUFFIXES else "not an image by its name"
