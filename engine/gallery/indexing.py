"""Indexing: every image of a list into a gallery, each once, resumable at any point."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from engine.contract import Array
from engine.errors import ImageError
from engine.features import Features
from engine.files import absolute
from engine.gallery.map_codec import decode_map, encode_map
from engine.gallery.shards import FileStamp
from engine.gallery.writer import GalleryWriter
from engine.images import SUFFIXES, decode, limit_side
from engine.retrieval.retriever import Retriever

DRIFT_SAMPLE = 8  # images that the cost of 8-bit maps is measured on
READERS, AHEAD = 2, 4  # threads that read and decode, and images they may be ahead of the engine


@dataclass
class IndexReport:
    """What became of each image: `added`, `updated` (its content changed) and `unchanged` counts, failures by path.

    `score_drift` is what 8-bit maps do to pair scores, measured on the first images.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: dict[Path, str] = field(default_factory=dict)
    score_drift: float | None = None

    @property
    def usable(self) -> int:
        """Images of the list that are in the gallery now."""
        return self.added + self.updated + self.unchanged


@dataclass(frozen=True)
class Loaded:
    """A file as read: its stamp, and its image where it has to be extracted."""

    stamp: FileStamp
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
            error; it goes to the report.
    """
    sample: list[Features] = []
    for path, loaded in read_ahead(paths, writer, max_side_px):
        try:
            file = loaded.result()
            if file is None:
                report.unchanged += 1
            elif file.image is None:
                writer.touch(path, file.stamp)
                report.unchanged += 1
            else:
                known = path in writer
                features = retriever.extract(file.image)
                writer.put(path, file.stamp, features)
                sample += [features] if len(sample) < DRIFT_SAMPLE else []
                report.updated += known
                report.added += not known
        except ImageError as error:
            report.failed[path] = str(error)
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
                waiting.append((path, pool.submit(load, path, writer.stamp(path), max_side_px)))
                if len(waiting) > AHEAD:
                    yield waiting.popleft()
            yield from waiting
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def load(path: Path, known: FileStamp | None, max_side_px: int | None) -> Loaded | None:
    """The file, or None where size and time say that it has not changed.

    Raises:
        ImageError: the file cannot be read or is no usable image.
    """
    try:
        status = path.stat()
        if known and (status.st_size, status.st_mtime_ns) == (known.size, known.mtime_ns):
            return None
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror}); expected an image file") from error
    stamp = FileStamp(len(data), status.st_mtime_ns, hashlib.sha256(data).hexdigest())
    if known and stamp.digest == known.digest:
        return Loaded(stamp, None)
    return Loaded(stamp, limit_side(decode(data), max_side_px))


def find_images(sources: Iterable[Path]) -> list[Path]:
    """Image files: each named file whatever its ending, each named folder searched throughout; absolute, no doubles.

    Raises:
        ImageError: a source that does not exist, or sources without a single image.
    """
    found: dict[Path, None] = {}
    sources = list(sources)
    for source in sources:
        try:
            source.stat()
        except OSError as error:
            raise ImageError(f"{source}: {error.strerror}; expected an image file or a folder of them") from error
        files = walk(source) if source.is_dir() else [source]
        found.update((absolute(file), None) for file in files)
    if not found:
        raise ImageError(f"{', '.join(map(str, sources))}: no images; expected {', '.join(sorted(SUFFIXES))}")
    return list(found)


def walk(folder: Path) -> list[Path]:
    """Image files in a folder and those below it, sorted; hidden ones left out."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
