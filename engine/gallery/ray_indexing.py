"""Indexing on a Ray cluster: workers index parts of the image list into small galleries, which this process copies in.

Many processes can index parts at the same time, on all machines that share the gallery's folder. Both steps can be
interrupted at any moment: an unfinished part is resumed by the next process that takes it, and a finished part is
never changed, and is deleted only after all of its images are in the target gallery.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from cvnet_engine.engine import typed_json
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.cluster import Cluster, Worker, WorkerPool, worker_pool
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import GalleryError, GalleryInUseError, ImageError, one_line
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.files import read_text, write_atomically
from cvnet_engine.engine.gallery.indexing import IndexReport, index, streams
from cvnet_engine.engine.gallery.info import INFO, GalleryInfo, read_info
from cvnet_engine.engine.gallery.map_codecs import FIT_IMAGES, CompressedCodec
from cvnet_engine.engine.gallery.shards import shard_files
from cvnet_engine.engine.gallery.walk import Intact, walk
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.geometry import IMAGE_SCALES
from cvnet_engine.engine.retrieval.engines import Engines

PARTS = "parts"  # folder in a gallery
RECORD = "made.json"  # in the folder of a finished part
IMAGES_PER_PART = 64  # about a minute of work for a worker
LEFT_BEHIND_S = 30  # time for a worker of a killed run to release its part
AHEAD = 2  # parts per worker that may be finished before it is their turn to be copied


@dataclass(frozen=True)
class Part:
    """Images that are indexed together, and the folder of their small gallery."""

    folder: Path
    paths: tuple[Path, ...]

    @property
    def gallery(self) -> Path:
        """Folder of the target gallery."""
        return self.folder.parent.parent

    @property
    def is_finished(self) -> bool:
        """True if the part is finished and covers all of `paths`.

        A part finished by an earlier run can lack images that were in the target gallery at that time.

        Raises:
            GalleryError: the part's record is damaged.
        """
        return (self.folder / RECORD).exists() and set(read_record(self).images).issuperset(map(str, self.paths))


@dataclass(frozen=True)
class PartRecord:
    """Record of a finished part: its images, and a reason per image that could not be read."""

    images: tuple[str, ...]
    failed: dict[str, str]


def cut(
    paths: Sequence[Path],
    wanted: Collection[Path],
    gallery: Path,
    info: GalleryInfo,
    images: int = IMAGES_PER_PART,
) -> list[Part]:
    """Cut a list into parts of `images` images each, then leave out the images that are not in `wanted`.

    The folder of a part depends only on the list and the gallery's settings, so a later run finds unfinished parts.
    """
    stretches = (paths[start : start + images] for start in range(0, len(paths), images))
    return [
        Part(folder_of(stretch, gallery, info), tuple(path for path in stretch if path in wanted))
        for stretch in stretches
    ]


def folder_of(paths: Iterable[Path], gallery: Path, info: GalleryInfo) -> Path:
    scales = () if info.scales == IMAGE_SCALES else map(str, info.scales)
    made_with = (info.features_id, str(info.max_side_px), info.maps, info.code, *scales)
    names = b"\0".join([*map(str.encode, made_with), *map(os.fsencode, paths)])
    return gallery / PARTS / hashlib.sha256(names).hexdigest()[:32]


def make(part: Part, info: GalleryInfo, engines: Engines) -> None:
    """Index a part, or the rest of it.

    Raises:
        GalleryInUseError: another process is indexing it.
        GalleryError: the disk is full.
    """
    report = IndexReport()
    with GalleryWriter(part.folder, replace(info, code="")) as writer:
        if writer.needs_fit:
            writer.use_codec(CompressedCodec.load(part.gallery, info.code), info.fidelity)
        index(part.paths, engines, writer, info.max_side_px, report)
    record = PartRecord(tuple(map(str, part.paths)), {str(path): reason for path, reason in report.failed.items()})
    write_atomically(part.folder / RECORD, json.dumps(vars(record)))


def take_in(part: Part, writer: GalleryWriter, report: IndexReport) -> None:
    """Copy a finished part into the gallery, delete its folder, and add its images to the report.

    Raises:
        GalleryError: the part is damaged, or the gallery cannot be written.
    """
    for found in walk(part.folder, read_info(part.folder)):
        if not isinstance(found, Intact):
            raise GalleryError(
                f"{part.folder}: {found.path} is damaged ({found.reason}); remove this folder and run the command again"
            )
        path, stamp = found.image.path, found.image.stamp
        if path not in part.paths:  # already in the gallery
            continue
        known, held = path in writer, writer.stamp(path)
        same = held is not None and held.digest == stamp.digest  # for instance copied before a kill
        if held != stamp or not writer.has_exif(path):
            writer.store(found.image, found.rows)
        report.unchanged += same
        report.updated += known and not same
        report.added += not known
    failed = {Path(path): reason for path, reason in read_record(part).failed.items()}
    report.failed |= {path: reason for path, reason in failed.items() if path in part.paths}
    discard(part)


def discard(part: Part) -> None:
    """Delete the folder of a part, its record first, so that after a kill the rest counts as unfinished."""
    if part.folder.exists():
        for file in (part.folder / RECORD, *shard_files(part.folder, recorded=0), part.folder / INFO):
            file.unlink(missing_ok=True)
        shutil.rmtree(part.folder)


def read_record(part: Part) -> PartRecord:
    file = part.folder / RECORD
    try:
        return typed_json.parse(read_text(file), PartRecord)
    except (OSError, ValueError) as error:
        raise GalleryError(
            f"{file}: not readable ({one_line(error)}); remove its folder and run the command again"
        ) from error


def outdated(
    paths: Iterable[Path], writer: GalleryWriter, report: IndexReport, done: Callable[[Path], None]
) -> list[Path]:
    """Return the images that must be indexed: missing from the gallery, changed, or with EXIF metadata not yet read.

    A file counts as changed if its size or modification time differs. The other images are added to the report as
    unchanged, and `done` is called after each.
    """
    found = []
    for path in paths:
        known = writer.stamp(path)
        try:
            unchanged = known is not None and known.fits(path.stat())
        except OSError:  # the worker that indexes its part reports the error
            unchanged = False
        if unchanged and writer.has_exif(path):
            report.unchanged += 1
            done(path)
        else:
            found.append(path)
    return found


class PartWorker(Worker):
    """A worker that indexes parts."""

    def make(self, part: Part, info: GalleryInfo) -> Part:
        """Index a part, or the rest of it, and return it.

        Raises:
            CvnetError: the part cannot be indexed.
        """
        given_up = time.monotonic() + LEFT_BEHIND_S
        while True:
            try:
                make(part, info, self.engines)
            except GalleryInUseError:
                if time.monotonic() > given_up:
                    raise
                time.sleep(1)
            else:
                return part

    def describe(self, paths: Sequence[Path], max_side_px: int | None) -> list[Features]:
        """Extract the features of images, leaving out those that cannot be read."""
        found = []
        for path in paths:
            with contextlib.suppress(ImageError):
                found.append(self.engines.extract_from(path, max_side_px=max_side_px))
        return found

    def score(self, query: Features, keys: Sequence[Features]) -> Array:
        """Return the pair scores (n,) of a query and n candidates."""
        return self.engines.score(query, keys)


class Indexer(Protocol):
    """Adds images to a gallery with opened engines; see `indexing.index`."""

    def __call__(
        self, paths: Sequence[Path], writer: GalleryWriter, report: IndexReport, done: Callable[[Path], None]
    ) -> None: ...


def indexer_with(engines: Engines) -> Indexer:
    """Return the function that indexes images with engines of this process."""
    return lambda paths, writer, report, done: index(paths, engines, writer, writer.info.max_side_px, report, done)


@contextlib.contextmanager
def opened_indexer(
    bundle: Bundle, settings: GalleryInfo, threads: int | None = None, cluster: Cluster | None = None
) -> Iterator[Indexer]:
    """Yield the function that indexes images: with engines of this process, or on a Ray cluster if one is given."""
    if cluster:
        yield lambda paths, writer, report, done: index_on_cluster(paths, bundle, writer, report, cluster, done)
        return
    at_once = streams(bundle, threads, settings.max_side_px)
    with Engines.open(bundle, threads, settings.scales, at_once) as engines:
        yield indexer_with(engines)


def index_on_cluster(
    paths: Sequence[Path],
    bundle: Bundle,
    writer: GalleryWriter,
    report: IndexReport,
    cluster: Cluster,
    done: Callable[[Path], None] = lambda _: None,
    images_per_part: int = IMAGES_PER_PART,
) -> None:
    """Bring the gallery up to date with the files, in their order, as `indexing.index` does.

    Raises:
        BackendError: Ray is not installed, or the cluster cannot be reached.
        CvnetError: a part could not be indexed; the parts before it are in the gallery.
    """
    wanted = outdated(paths, writer, report, done)
    for part in cut(paths, set(wanted), writer.path, writer.info, images_per_part):
        if not part.paths:  # copied by a run that was killed before it deleted the part
            discard(part)
    if not wanted:
        return
    with worker_pool(PartWorker, bundle, cluster, writer.info.scales) as workers:

        def score(query: Features, keys: Sequence[Features]) -> Array:
            workers.give("score", query, keys)
            return np.asarray(workers.result())

        if writer.needs_fit:
            writer.fit(sample(wanted, writer.info, workers), score)
        report.fidelity = writer.info.fidelity
        parts = cut(paths, set(wanted), writer.path, writer.info, images_per_part)
        for part in made_in_order([part for part in parts if part.paths], writer.info, workers):
            take_in(part, writer, report)
            for path in part.paths:
                done(path)


def sample(paths: Sequence[Path], info: GalleryInfo, workers: WorkerPool) -> list[Features]:
    """Extract the features of the first images, to fit the map compression.

    Raises:
        ImageError: none of these images can be read.
    """
    first = paths[:FIT_IMAGES]
    workers.give("describe", first, info.max_side_px)
    found: list[Features] = workers.result()
    if not found:
        raise ImageError(f"none of the first {len(first)} images can be read; the map compression is fitted to them")
    return found


def made_in_order(parts: Sequence[Part], info: GalleryInfo, workers: WorkerPool) -> Iterator[Part]:
    """Have the workers index parts, and yield each when finished, in order; at most `AHEAD` parts per worker wait.

    Raises:
        CvnetError: a part could not be indexed.
    """
    made = {part.folder for part in parts if part.is_finished}
    waiting = deque(number for number, part in enumerate(parts) if part.folder not in made)
    for number, part in enumerate(parts):
        while waiting and waiting[0] < number + AHEAD * len(workers):
            workers.give("make", parts[waiting.popleft()], info)
        while part.folder not in made:
            made.add(workers.result().folder)
        yield part
