"""A substitute for Ray in this process: a job runs when its result is requested; workers die on request."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    """Raised if a worker has died."""


class RayTaskError(RayError):
    """Raised if a job has raised an error, its `cause`."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


class FakeRay:
    """A cluster of two CPUs. Arguments and results are pickled, as by Ray.

    Attributes:
        spawned: all workers, including dead ones.
        called: names of methods in the order of their calls.
        deadly: positions in that order at which the worker dies instead.
        room: number of spawned workers that start; later ones wait forever.
    """

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, *deadly: int, room: int = 1000) -> None:
        self.spawned: list[Any] = []
        self.called: list[str] = []
        self.deadly, self.room = deadly, room

    def init(self, **_: object) -> None: ...

    def shutdown(self) -> None: ...

    def put(self, value: Any) -> Any:
        return value

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 2.0}}]

    def remote(self, **_: object) -> Callable[[type], Any]:
        return lambda kind: SimpleNamespace(remote=lambda *arguments: self.spawn(kind, arguments))

    def spawn(self, kind: type, arguments: tuple[Any, ...]) -> FakeActor:
        self.spawned.append(kind(*copied(arguments)))
        return FakeActor(self, self.spawned[-1])

    def wait(self, jobs: list[FakeJob]) -> tuple[list[FakeJob], list[FakeJob]]:
        """Return the oldest job of a worker that has started as finished."""
        done = next(job for job in jobs if job.worker in self.spawned[: self.room])
        return [done], [job for job in jobs if job is not done]

    def get(self, job: FakeJob) -> Any:
        return job()


class FakeActor:
    """The handle of a worker."""

    def __init__(self, ray: FakeRay, worker: Any) -> None:
        self._ray, self._worker = ray, worker

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: FakeJob(self._ray, self._worker, method, arguments))


class FakeJob:
    """A call of a worker's method that has not run yet."""

    def __init__(self, ray: FakeRay, worker: Any, method: str, arguments: tuple[Any, ...]) -> None:
        self._ray, self.worker, self._method, self._arguments = ray, worker, method, copied(arguments)

    def __call__(self) -> Any:
        self._ray.called.append(self._method)
        if len(self._ray.called) - 1 in self._ray.deadly:
            raise RayError("died\nof many lines")
        try:
            return copied(getattr(self.worker, self._method)(*self._arguments))
        except Exception as error:
            raise RayTaskError(error) from error


def copied(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))
