"""Indexing by a Ray cluster: its workers make parts, this process puts them into the gallery.

Bundle, gallery and images lie in folders that every machine of the cluster sees under the same names.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.backends import known
from engine.bundle import Bundle
from engine.contract import Array
from engine.errors import BackendError, CvnetError, GalleryInUseError, ImageError, one_line
from engine.features import Features
from engine.gallery.indexing import IndexReport
from engine.gallery.info import GalleryInfo
from engine.gallery.learnt_codec import LEARN_FROM
from engine.gallery.parts import IMAGES_PER_PART, Part, cut, make, stale, take_in
from engine.gallery.writer import GalleryWriter
from engine.retrieval.retriever import Retriever

WORKER_THREADS = 2
CONNECT_S = 10
LEFT_BEHIND_S = 30  # until a worker of a run that was killed has let go of its part
RETRIES = 3  # of a part whose worker dies
AHEAD = 2  # parts made for each worker that may wait for one before them


@dataclass(frozen=True)
class Cluster:
    """Where parts are made.

    Attributes:
        address: of a Ray cluster, as `ray start` printed it; None for one of this machine alone, while it is needed.
        workers: processes, each with engines of its own; None for as many as the cluster has room for.
        threads: CPU threads of each.
        images_per_part: the work that is given to a worker at once.
    """

    address: str | None = None
    workers: int | None = None
    threads: int = WORKER_THREADS
    images_per_part: int = IMAGES_PER_PART


class Worker:
    """A process of the cluster that makes parts."""

    def __init__(self, bundle: Path, threads: int) -> None:
        self._retriever = Retriever.open(Bundle(bundle), threads)

    def make(self, part: Part, info: GalleryInfo) -> str | None:
        """What went wrong with a part; None if nothing did."""
        given_up = time.monotonic() + LEFT_BEHIND_S
        while True:
            try:
                make(part, info, self._retriever)
            except GalleryInUseError as error:
                if time.monotonic() > given_up:
                    return str(error)
                time.sleep(1)
            except CvnetError as error:
                return str(error)
            else:
                return None

    def describe(self, paths: Sequence[Path], max_side_px: int | None) -> list[Features]:
        """Features of those of the images that can be read."""
        found = []
        for path in paths:
            with contextlib.suppress(ImageError):
                found.append(self._retriever.extract_file(path, max_side_px=max_side_px))
        return found

    def score(self, query: Features, keys: Sequence[Features]) -> Array:
        """Pair scores (n,) of a query and its keys."""
        return self._retriever.score(query, keys)


def index_on_cluster(
    paths: Sequence[Path],
    bundle: Bundle,
    writer: GalleryWriter,
    report: IndexReport,
    cluster: Cluster,
    done: Callable[[Path], None] = lambda _: None,
) -> None:
    """Bring the gallery up to date with the files, in their order, as `indexing.index` does.

    Raises:
        BackendError: Ray is not here, or not to be reached.
        CvnetError: a part could not be made; those before it are in the gallery.
    """
    wanted = stale(paths, writer, report, done)
    if not wanted:
        return
    with workers(bundle, cluster) as pool:
        if writer.is_unlearnt:
            import ray

            score = pool[0].score
            writer.learn(sample(wanted, writer.info, pool), lambda query, keys: ray.get(score.remote(query, keys)))
        report.fidelity = writer.info.fidelity
        for part in made_in_order(cut(wanted, writer.path, writer.info, cluster.images_per_part), writer.info, pool):
            take_in(part, writer, report)
            for path in part.paths:
                done(path)


def sample(paths: Sequence[Path], info: GalleryInfo, pool: Sequence[Any]) -> list[Features]:
    """Features of the first images, from which the code of their maps is learnt.

    Raises:
        ImageError: none of them can be read.
    """
    import ray

    first = paths[:LEARN_FROM]
    found: list[Features] = ray.get(pool[0].describe.remote(first, info.max_side_px))
    if not found:
        raise ImageError(f"none of the first {len(first)} images can be read, to learn the code of maps from them")
    return found


def made_in_order(parts: Sequence[Part], info: GalleryInfo, pool: Sequence[Any]) -> Iterator[Part]:
    """Parts as they are to be taken in, each once it is made; workers are at most `AHEAD` parts each before it.

    Raises:
        CvnetError: one could not be made.
    """
    import ray

    waiting = deque(number for number, part in enumerate(parts) if not part.is_made)
    free, busy = list(pool), {}
    for number, part in enumerate(parts):
        while not part.is_made:
            while free and waiting and waiting[0] < number + AHEAD * len(pool):
                worker = free.pop()
                busy[worker.make.remote(parts[waiting.popleft()], info)] = worker
            (finished, *_), _ = ray.wait(list(busy))
            free.append(busy.pop(finished))
            try:
                reason = ray.get(finished)
            except ray.exceptions.RayError as error:
                reason = f"a worker of the Ray cluster failed {RETRIES + 1} times ({one_line(error)}); see its logs"
            if reason:
                raise CvnetError(reason)
        yield part


@contextlib.contextmanager
def workers(bundle: Bundle, cluster: Cluster) -> Iterator[list[Any]]:
    """The cluster's workers; one that dies is started again, and makes its part anew from where it was."""
    ray = import_ray()
    try:
        if cluster.address and re.fullmatch(r".*:\d+", cluster.address):  # Ray itself would wait for minutes
            host, port = cluster.address.rsplit(":", 1)
            socket.create_connection((host, int(port)), CONNECT_S).close()
        ray.init(address=cluster.address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except OSError as error:  # a ConnectionError, from Ray
        raise BackendError(
            f"no Ray cluster at {cluster.address!r}; start one with 'ray start --head', or leave --address out"
        ) from error
    try:
        needed = {"num_cpus": cluster.threads, "num_gpus": int(on_gpu(bundle))}
        room = count_workers(ray.cluster_resources(), needed)
        if not room:
            raise BackendError(
                f"the Ray cluster has no machine for a worker of {cluster.threads} threads"
                f"{' and a GPU' if needed['num_gpus'] else ''}; give a lower --threads"
            )
        remote = ray.remote(max_restarts=-1, max_task_retries=RETRIES, **needed)(Worker)
        yield [
            remote.remote(bundle.path.absolute(), cluster.threads) for _ in range(min(cluster.workers or room, room))
        ]
    finally:
        ray.shutdown()


def count_workers(resources: dict[str, float], needed: dict[str, int]) -> int:
    """How many workers the cluster has room for, as far as sums over its machines tell."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    return min(int(resources.get(names[name], 0) // count) for name, count in needed.items() if count)


def on_gpu(bundle: Bundle) -> bool:
    return any(known(graph.backend).device == "cuda" for graph in bundle.manifest.graphs.values())


def import_ray() -> Any:
    """Ray, which counts its users unless told otherwise.

    Raises:
        BackendError: it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise BackendError(
            f"Ray cannot be imported ({error}); install it with 'uv sync --extra ray', or use --runner local"
        ) from error
    return ray
