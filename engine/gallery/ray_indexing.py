"""Indexing by a Ray cluster: its workers make parts, this process puts them into the gallery."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.cluster import Cluster, Crew, Worker, crew
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import GalleryInUseError, ImageError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.indexing import IndexReport
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.learnt_codec import LEARN_FROM
from cvnet_engine.engine.gallery.parts import IMAGES_PER_PART, Part, cut, discard, make, stale, take_in
from cvnet_engine.engine.gallery.writer import GalleryWriter

LEFT_BEHIND_S = 30  # until a worker of a run that was killed has let go of its part
AHEAD = 2  # parts made for each worker that may wait for one before them


class PartWorker(Worker):
    """Makes parts."""

    def make(self, part: Part, info: GalleryInfo) -> Part:
        """Make a part, or what is missing of it, and return it.

        Raises:
            CvnetError: it cannot be made.
        """
        given_up = time.monotonic() + LEFT_BEHIND_S
        while True:
            try:
                make(part, info, self.retriever)
            except GalleryInUseError:
                if time.monotonic() > given_up:
                    raise
                time.sleep(1)
            else:
                return part

    def describe(self, paths: Sequence[Path], max_side_px: int | None) -> list[Features]:
        """Features of those of the images that can be read."""
        found = []
        for path in paths:
            with contextlib.suppress(ImageError):
                found.append(self.retriever.extract_from(path, max_side_px=max_side_px))
        return found

    def score(self, query: Features, keys: Sequence[Features]) -> Array:
        """Pair scores (n,) of a query and its keys."""
        return self.retriever.score(query, keys)


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
        BackendError: Ray is not here, or not to be reached.
        CvnetError: a part could not be made; those before it are in the gallery.
    """
    wanted = stale(paths, writer, report, done)
    for part in cut(paths, set(wanted), writer.path, writer.info, images_per_part):
        if not part.paths:  # taken in by a run that was killed then
            discard(part)
    if not wanted:
        return
    with crew(PartWorker, bundle, cluster, writer.info.scales) as workers:

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


def sample(paths: Sequence[Path], info: GalleryInfo, workers: Crew) -> list[Features]:
    """Features of the first images, from which the code of their maps is learnt.

    Raises:
        ImageError: none of them can be read.
    """
    first = paths[:LEARN_FROM]
    workers.give("describe", first, info.max_side_px)
    found: list[Features] = workers.result()
    if not found:
        raise ImageError(f"none of the first {len(first)} images can be read, to learn the code of maps from them")
    return found


def made_in_order(parts: Sequence[Part], info: GalleryInfo, workers: Crew) -> Iterator[Part]:
    """Parts as they are to be taken in, each once it is made; workers are at most `AHEAD` parts each before it.

    Raises:
        CvnetError: one could not be made.
    """
    made = {part.folder for part in parts if part.is_made}
    waiting = deque(number for number, part in enumerate(parts) if part.folder not in made)
    for number, part in enumerate(parts):
        while waiting and waiting[0] < number + AHEAD * len(workers):
            workers.give("make", parts[waiting.popleft()], info)
        while part.folder not in made:
            made.add(workers.result().folder)
        yield part
