"""Indexing: every image of a list into a gallery, each once, resumable at any point."""

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
from cvnet_engine.engine.gallery.fidelity import SCORED, Fidelity, Score, score_change
from cvnet_engine.engine.gallery.learnt_codec import LEARN_FROM
from cvnet_engine.engine.gallery.shards import FileStamp
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.images import EXPECTED, SUFFIXES, decode, limit_side, read_bytes, read_shot
from cvnet_engine.engine.photo_formats import missing
from cvnet_engine.engine.retrieval.engines import Engines, on_gpu

MOST_STREAMS = 4  # images described at once: each takes memory of its own, 0.6 GB at 1024x768 px in float32
READERS = 2  # threads more than the engines serve: they read and decode, and are ready when an engine is


@dataclass
class IndexReport:
    """What became of each image: `added`, `updated` (its content changed) and `unchanged` counts, failures by path.

    `skipped` are files that were not taken for images, and why; `score_drift` is the largest change of a
    pair score by compressed maps, measured on the last images, `fidelity` what
    compression does to the gallery's first images.
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
        """Images of the list that are in the gallery now."""
        return self.added + self.updated + self.unchanged


@dataclass(frozen=True)
class Seen:
    """A file as it was found: its stamp, what its EXIF says, and its features where they had to be extracted."""

    stamp: FileStamp
    shot: Shot
    features: Features | None


def index(
    paths: Iterable[Path],
    retriever: Engines,
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
    assert retriever.scales == writer.info.scales
    intake = Intake(writer, retriever.score, report, done)
    for path, seen in look_ahead(paths, retriever, writer, max_side_px):
        try:
            file = seen.result()
            if file is not None and file.features is not None:
                intake.add(Extracted(path, file.stamp, file.shot, file.features))
                continue
            if file is not None:
                writer.touch(path, file.stamp, file.shot)
            report.unchanged += 1
        except ImageError as error:
            report.failed[path] = str(error)
        except MemoryError:
            report.failed[path] = "out of memory; a smaller --max-side needs less, else shrink it first"
        done(path)
    intake.store()
    report.fidelity = writer.info.fidelity
    if writer.info.maps != "float16" and intake.last:
        report.score_drift = score_change(retriever.score, writer.codec, list(intake.last)).largest


@dataclass(frozen=True)
class Extracted:
    """What a gallery is to keep of an image."""

    path: Path
    stamp: FileStamp
    shot: Shot
    features: Features


class Intake:
    """Features on their way into a gallery; the first wait until the code of its maps has been learnt from them.

    `last` are those of the last few images.
    """

    def __init__(self, writer: GalleryWriter, score: Score, report: IndexReport, done: Callable[[Path], None]) -> None:
        self._writer, self._score, self._report, self._done = writer, score, report, done
        self._waiting: deque[Extracted] = deque()
        self.last: deque[Features] = deque(maxlen=SCORED)

    def add(self, image: Extracted) -> None:
        self._waiting.append(image)
        self.last.append(image.features)
        if not self._writer.is_unlearnt or len(self._waiting) == LEARN_FROM:
            self.store()

    def store(self) -> None:
        """Put in what waits."""
        if self._waiting and self._writer.is_unlearnt:
            self._writer.learn([image.features for image in self._waiting], self._score)
        while self._waiting:
            image = self._waiting.popleft()
            known = image.path in self._writer
            self._writer.put(image.path, image.stamp, image.features, image.shot)
            self._report.updated += known
            self._report.added += not known
            self._done(image.path)


def streams(bundle: Bundle, threads: int | None, max_side_px: int | None) -> int:
    """How many images to describe at once: a CPU's threads do more for an image each than together for one.

    A GPU takes one after the other, and so does a CPU where images may be of any size, for their memory.
    """
    if max_side_px is None or on_gpu(bundle):
        return 1
    return min(usable_threads(threads), MOST_STREAMS)


def look_ahead(
    paths: Iterable[Path], retriever: Engines, writer: GalleryWriter, max_side_px: int | None
) -> Iterator[tuple[Path, Future[Seen | None]]]:
    """Files looked at in the background, as many at once as the retriever serves and a few more, yielded in order."""
    turns = Semaphore(retriever.streams)

    def describe(data: bytes) -> Features:
        image = limit_side(decode(data), max_side_px)
        with turns:
            return retriever.extract(image)

    workers = retriever.streams + READERS
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Path, Future[Seen | None]]] = deque()
        try:
            for path in paths:
                known = writer.stamp(path)
                dated = known is not None and writer.is_dated(path)
                waiting.append((path, pool.submit(look, path, known, dated, describe)))
                if len(waiting) > workers:
                    yield waiting.popleft()
            yield from waiting
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def look(path: Path, known: FileStamp | None, dated: bool, describe: Callable[[bytes], Features]) -> Seen | None:
    """The file, or None where size and time say that it has not changed and its EXIF has been looked at.

    Args:
        known: the file as it was indexed, None where it has to be described.
        describe: a file's bytes -> its image's features.

    Raises:
        ImageError: the file cannot be read or is no usable image.
    """
    try:
        status = path.stat()
        if known and dated and known.fits(status):
            return None
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror}); expected an image file") from error
    data = read_bytes(path)
    stamp = FileStamp(len(data), status.st_mtime_ns, hashlib.sha256(data).hexdigest())
    shot = read_shot(data)
    if known and stamp.digest == known.digest:
        return Seen(stamp, shot, None)
    return Seen(stamp, shot, describe(data))


@dataclass(frozen=True)
class Found:
    """Files of some sources: the images, and why every other one was passed over; absolute, in order, no doubles."""

    images: list[Path]
    skipped: dict[Path, str]


def find_images(sources: Iterable[Path]) -> list[Path]:
    """The images that `find` finds."""
    return find(sources).images


@dataclass(frozen=True)
class Patterns:
    """Which files of a folder are wanted: those that match any of `include`, where there are any, and no `exclude`.

    Shell patterns, matched with a file's name and with its path below the folder, whose separators `*` matches too.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def objection(self, path: Path, folder: Path) -> str | None:
        """Why a file of a folder is passed over; None for one that is wanted."""
        names = (path.name, str(path.relative_to(folder)))

        def match(patterns: tuple[str, ...]) -> bool:
            return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)

        if self.include and not match(self.include):
            return "not among --include"
        return "among --exclude" if match(self.exclude) else None


EVERYTHING = Patterns()


def find(sources: Iterable[Path], patterns: Patterns = EVERYTHING) -> Found:
    """Image files: each named file whatever its ending, each named folder searched throughout for what is wanted.

    Raises:
        ImageError: a source that does not exist or is neither file nor folder, or sources without a single image.
    """
    images: dict[Path, None] = {}
    skipped: dict[Path, str] = {}
    sources = list(sources)
    for source in sources:
        found = walk(source, patterns) if is_folder(source) else Found([source], {})
        images.update((absolute(file), None) for file in found.images)
        skipped.update((absolute(file), reason) for file, reason in found.skipped.items())
    if not images:
        listed = "".join(f"; {count} passed over: {reason}" for reason, count in Counter(skipped.values()).items())
        raise ImageError(f"{', '.join(map(str, sources))}: no images; expected {EXPECTED}{listed}")
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


def walk(folder: Path, patterns: Patterns = EVERYTHING) -> Found:
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
            reason = objection(entry)
            if reason is None and entry.is_dir():
                folders.append(path)
            elif reason := reason or patterns.objection(path, folder):
                skipped[path] = reason
            else:
                images.append(path)
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
    return missing(SUFFIXES[suffix]) if suffix in SUFFIXES else "not an image by its name"
