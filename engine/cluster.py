"""A Ray cluster at work: processes with engines of their own, each at one job at a time.

The bundle and the files that jobs name lie in folders that every machine of the cluster sees under the same names.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import BackendError, install_hint, one_line
from cvnet_engine.engine.geometry import IMAGE_SCALES, Scales
from cvnet_engine.engine.retrieval.engines import Engines, on_gpu

WORKER_THREADS = 2
CONNECT_S = 10
ATTEMPTS = 4  # at a job whose workers die


@dataclass(frozen=True)
class Cluster:
    """Where work is done.

    Attributes:
        address: of a Ray cluster, as `ray start` printed it; None for one of this machine alone, while it is needed.
        workers: processes, each with engines of its own; None for as many as the cluster has room for.
        threads: CPU threads of each.
    """

    address: str | None = None
    workers: int | None = None
    threads: int = WORKER_THREADS


class Worker:
    """A process of a cluster; what it can do is a method each."""

    retriever: Engines

    def __init__(self, bundle: Path, threads: int, scales: Scales = IMAGE_SCALES) -> None:
        """
        Args:
            scales: that it describes images at.
        """
        self._bundle, self._threads, self._scales = bundle, threads, scales

    def start(self) -> None:
        """The first job of every worker.

        Raises:
            CvnetError: the bundle or one of its engines cannot be opened there.
        """
        self.retriever = Engines.open(Bundle(self._bundle), self._threads, self._scales)


@dataclass
class Job:
    """A method of a worker to call; `deaths` counts the workers that died at it."""

    method: str
    arguments: tuple[Any, ...] = ()
    deaths: int = 0


class Crew:
    """Workers of a cluster. Whoever is free takes the next job; one that dies is replaced, and another does its job."""

    def __init__(self, hire: Callable[[], Any], size: int) -> None:
        """
        Args:
            hire: makes a Ray actor of a `Worker`, which may have to wait for room.
        """
        self._hire, self._size = hire, size
        self._waiting: deque[Job] = deque()
        self._free: list[Any] = []
        self._busy: dict[Any, tuple[Any, Job]] = {}  # by the reference to what will come of it
        for _ in range(size):
            self._add(Job("start"))

    def __len__(self) -> int:
        return self._size

    def give(self, method: str, *arguments: Any) -> None:
        """Have a method of a worker called."""
        self._waiting.append(Job(method, arguments))
        self._assign()

    def result(self) -> Any:
        """What comes of the next job that is finished.

        Raises:
            BackendError: worker after worker died at it.
            Exception: whatever the job itself raised.
        """
        import ray

        while True:
            (finished, *_), _ = ray.wait(list(self._busy))
            worker, job = self._busy.pop(finished)
            try:
                found = ray.get(finished)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError as error:
                self._replace(job, error)
                continue
            self._free.append(worker)
            self._assign()
            if job.method != "start":
                return found

    def _assign(self) -> None:
        while self._free and self._waiting:
            self._call(self._free.pop(), self._waiting.popleft())

    def _call(self, worker: Any, job: Job) -> None:
        self._busy[getattr(worker, job.method).remote(*job.arguments)] = worker, job

    def _add(self, start: Job) -> None:
        self._call(self._hire(), start)

    def _replace(self, job: Job, error: Exception) -> None:
        """Another worker for one that died at a job."""
        job.deaths += 1
        if job.deaths == ATTEMPTS:
            raise BackendError(
                f"{ATTEMPTS} workers of the Ray cluster died at one job ({one_line(error)}); see its logs"
            )
        if job.method == "start":
            self._add(job)
        else:
            self._waiting.appendleft(job)
            self._add(Job("start"))
            self._assign()  # to one that is free: there may be no room for another


@contextlib.contextmanager
def crew(kind: type[Worker], bundle: Bundle, cluster: Cluster, *arguments: Any) -> Iterator[Crew]:
    """As many workers as the cluster has room for, or fewer where that was asked for; `arguments` go to each.

    Raises:
        BackendError: Ray is not here, the cluster not to be reached, or no machine of it has room for a worker.
    """
    with hiring(kind, bundle, cluster, *arguments) as (hire, size):
        yield Crew(hire, size)


@contextlib.contextmanager
def hiring(
    kind: type[Worker], bundle: Bundle, cluster: Cluster, *arguments: Any, **options: Any
) -> Iterator[tuple[Callable[[], Any], int]]:
    """What makes a Ray actor of a kind of worker, and how many there are to be; see `crew`.

    Args:
        options: of the actor, as Ray takes them.
    """
    with connected(cluster.address) as ray:
        needed = {"num_cpus": cluster.threads, "num_gpus": int(on_gpu(bundle))}
        room = count_workers([node["Resources"] for node in ray.nodes() if node["Alive"]], needed)
        if not room:
            raise BackendError(
                f"the Ray cluster has no machine for a worker of {cluster.threads} threads"
                f"{' and a GPU' if needed['num_gpus'] else ''}; give a lower --threads"
            )
        actor = ray.remote(**needed, **options)(kind)
        shared = [ray.put(argument) for argument in arguments]
        hire = partial(actor.remote, bundle.path.absolute(), cluster.threads, *shared)
        yield hire, min(cluster.workers or room, room)


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster, or to one of this machine alone that ends with the block."""
    ray = import_ray()
    try:
        if address and re.fullmatch(r".*:\d+", address):  # Ray itself would wait for minutes
            host, port = address.rsplit(":", 1)
            socket.create_connection((host, int(port)), CONNECT_S).close()
        ray.init(address=address or "local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except OSError as error:  # a ConnectionError, from Ray
        raise BackendError(
            f"no Ray cluster at {address!r}; start one with 'ray start --head', or leave --address out"
        ) from error
    except Exception as error:  # Ray's own, of no type, when its processes take more than 30 s
        raise BackendError(
            f"Ray did not start ({one_line(error)}); try again when this machine has less to do"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def count_workers(machines: Iterable[dict[str, float]], needed: dict[str, int]) -> int:
    """How many workers a cluster has room for, each on one of its machines, by what these have."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    return sum(
        min(int(has.get(names[name], 0) // count) for name, count in needed.items() if count) for has in machines
    )


def import_ray() -> Any:
    """Ray, which counts its users unless told otherwise.

    Raises:
        BackendError: it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise BackendError(f"Ray cannot be imported ({error}); {install_hint('ray')}, or use --runner local") from error
    return ray
