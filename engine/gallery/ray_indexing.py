"""Indexing on a Ray cluster: the workers index parts, and this process copies them into the gallery."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.cluster import Cluster, Worker, WorkerPool, worker_pool
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import GalleryInUseError, ImageError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.indexing import IndexReport
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.learnt_codec import LEARN_FROM
from cvnet_engine.engine.gallery.parts import IMAGES_PER_PART, Part, cut, discard, make, stale, take_in
from cvnet_engine.engine.gallery.writer import GalleryWriter

LEFT_BEHIND_S = 30  # time for a worker of a killed run to release its part
AHEAD = 2  # parts per worker that may be finished before it is their turn to be copied


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
    wanted = stale(paths, writer, report, done)
    for part in cut(paths, set(wanted), writer.path, writer.info, images_per_part):
        if not part.paths:  # copied by a run that was killed before it deleted the part
            discard(part)
    if not wanted:
        return
    with worker_pool(PartWorker, bundle, cluster, writer.info.scales) as workers:

        def score(query: Features, keys: Sequence[Features]) -> Array:
            workers.give("score", query, keys)
            return np.asarray(workers.result())

        if writer.is_unlearnt:
            writer.learn(sample(wanted, writer.info, workers), score)
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
    first = paths[:LEARN_FROM]
    workers.give("describe", first, info.max_side_px)
    found: list[Features] = workers.result()
    if not found:
        raise ImageError(f"none of the first {len(first)} images can be read, to learn the code of maps from them")
    return found


def made_in_order(parts: Sequence[Part], info: GalleryInfo, workers: WorkerPool) -> Iterator[Part]:
    """Have the workers index parts, and yield each when finished, in order; at most `AHEAD` parts per worker wait.

    Raises:
        CvnetError: a part could not be indexed.
    """
    made = {part.folder for part in parts if part.is_made}
    waiting = deque(number for number, part in enumerate(parts) if part.folder not in made)
    for number, part in enumerate(parts):
        while waiting and waiting[0] < number + AHEAD * len(workers):
            workers.give("make", parts[waiting.popleft()], info)
        while part.folder not in made:
            made.add(workers.result().folder)
        yield part
