"""A pool of workers on a Ray cluster: processes with separate engines, each running one job at a time.

All machines of the cluster must see the bundle and the files of jobs under the same paths.
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
ATTEMPTS = 4  # per job; an attempt fails when its worker dies


@dataclass(frozen=True)
class Cluster:
    """Address and size of a Ray cluster.

    Attributes:
        address: address printed by `ray start`; None to start a temporary cluster on this machine.
        workers: number of processes, each with separate engines; None for the most that fit the cluster.
        threads: CPU threads per worker.
    """

    address: str | None = None
    workers: int | None = None
    threads: int = WORKER_THREADS


class Worker:
    """A worker process of a cluster. Subclasses add a method per kind of job."""

    engines: Engines

    def __init__(self, bundle: Path, threads: int, scales: Scales = IMAGE_SCALES) -> None:
        """
        Args:
            scales: image scales used for descriptors.
        """
        self._bundle, self._threads, self._scales = bundle, threads, scales

    def start(self) -> None:
        """Open the engines. This is the first job of every worker.

        Raises:
            CvnetError: the bundle or one of its engines cannot be opened on the worker's machine.
        """
        self.engines = Engines.open(Bundle(self._bundle), self._threads, self._scales)


@dataclass
class Job:
    """A call of a worker's method. `deaths` counts the workers that died during it."""

    method: str
    arguments: tuple[Any, ...] = ()
    deaths: int = 0


class WorkerPool:
    """A worker pool on a cluster. A free worker takes the next job. If a worker dies, it is replaced and its job rerun.

    Results arrive in the order in which jobs finish.
    """

    def __init__(self, spawn: Callable[[], Any], size: int) -> None:
        """
        Args:
            spawn: spawns a Ray actor of a `Worker`, which starts once the cluster has free resources.
        """
        self._spawn, self._size = spawn, size
        self._waiting: deque[Job] = deque()
        self._free: list[Any] = []
        self._busy: dict[Any, tuple[Any, Job]] = {}  # by Ray's reference to the result
        for _ in range(size):
            self._add(Job("start"))

    def __len__(self) -> int:
        return self._size

    def give(self, method: str, *arguments: Any) -> None:
        """Queue a call of a worker's method."""
        self._waiting.append(Job(method, arguments))
        self._assign()

    def result(self) -> Any:
        """Wait for the next job to finish, and return its result.

        Raises:
            BackendError: `ATTEMPTS` workers died while running the job.
            Exception: any exception raised by the job.
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
        self._call(self._spawn(), start)

    def _replace(self, job: Job, error: Exception) -> None:
        """Spawn a worker in place of one that died, and rerun its job.

        Raises:
            BackendError: `ATTEMPTS` workers have died while running the job.
        """
        job.deaths += 1
        if job.deaths == ATTEMPTS:
            raise BackendError(
                f"{ATTEMPTS} workers of the Ray cluster died while running one job ({one_line(error)}); see its logs"
            )
        if job.method == "start":
            self._add(job)
        else:
            self._waiting.appendleft(job)
            self._add(Job("start"))
            self._assign()  # to a worker that is free now: the cluster may have no room for a new one


@contextlib.contextmanager
def worker_pool(kind: type[Worker], bundle: Bundle, cluster: Cluster, *arguments: Any) -> Iterator[WorkerPool]:
    """Yield a pool of as many workers as the cluster has room for, at most `cluster.workers`.

    Args:
        arguments: passed to each worker after the bundle and the threads.

    Raises:
        BackendError: Ray is not installed, the cluster cannot be reached, or it has no room for a worker.
    """
    with spawner(kind, bundle, cluster, *arguments) as (spawn, size):
        yield WorkerPool(spawn, size)


@contextlib.contextmanager
def spawner(
    kind: type[Worker], bundle: Bundle, cluster: Cluster, *arguments: Any, **options: Any
) -> Iterator[tuple[Callable[[], Any], int]]:
    """Yield a function that spawns a Ray actor of a kind of worker, and the number of workers to spawn.

    Args:
        options: Ray's options of the actor.
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
        spawn = partial(actor.remote, bundle.path.absolute(), cluster.threads, *shared)
        yield spawn, min(cluster.workers or room, room)


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Yield Ray, connected to a cluster; without an address, to a cluster on this machine that ends with the block.

    Raises:
        BackendError: Ray is not installed or does not start, or the cluster cannot be reached.
    """
    ray = import_ray()
    try:
        if address and re.fullmatch(r".*:\d+", address):  # ray.init would wait for minutes
            host, port = address.rsplit(":", 1)
            socket.create_connection((host, int(port)), CONNECT_S).close()
        ray.init(address=address or "local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except OSError as error:  # a ConnectionError, from Ray
        raise BackendError(
            f"no Ray cluster at {address!r}; start one with 'ray start --head', or use --runner ray"
        ) from error
    except Exception as error:  # Ray raises a bare Exception if its processes take more than 30 s
        raise BackendError(
            f"Ray did not start ({one_line(error)}); try again when this machine has less to do"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def count_workers(machines: Iterable[dict[str, float]], needed: dict[str, int]) -> int:
    """Return how many workers a cluster has room for, from the resources of its machines."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    return sum(
        min(int(has.get(names[name], 0) // count) for name, count in needed.items() if count) for has in machines
    )


def import_ray() -> Any:
    """Import Ray with its usage statistics turned off.

    Raises:
        BackendError: Ray is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise BackendError(f"Ray cannot be imported ({error}); {install_hint('ray')}, or use --runner local") from error
    return ray
