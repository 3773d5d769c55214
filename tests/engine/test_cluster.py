"""Workers of a cluster: who gets which job, and what becomes of one whose worker dies."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from engine.bundle import Bundle
from engine.cluster import ATTEMPTS, Cluster, Crew, connected, count_workers, crew
from engine.errors import BackendError, ImageError
from tests.hostile.tiny import write_bundle


class RayError(Exception):
    """What Ray raises where a worker has died."""


class RayTaskError(RayError):
    """What Ray raises where a job has."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


class FakeWorker:
    """Stands in for a Ray actor: jobs are done when they are waited for."""

    def __init__(self, do: Callable[..., Any]) -> None:
        self.work = SimpleNamespace(remote=lambda *arguments: lambda: do(self, *arguments))
        self.start = SimpleNamespace(remote=lambda: lambda: None)


@pytest.fixture
def hired(monkeypatch: pytest.MonkeyPatch) -> list[FakeWorker]:
    """Every worker there has been; of several that are busy the one that began first is done first."""
    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
    fake = SimpleNamespace(wait=lambda busy: (busy[:1], busy[1:]), get=lambda job: job(), exceptions=exceptions)
    monkeypatch.setitem(sys.modules, "ray", fake)
    return []


def crew_of(size: int, hired: list[FakeWorker], do: Callable[..., Any]) -> Crew:
    def hire() -> FakeWorker:
        hired.append(FakeWorker(do))
        return hired[-1]

    return Crew(hire, size)


def test_every_job_is_done_once(hired):
    workers = crew_of(2, hired, lambda worker, number: (hired.index(worker), number))
    for number in range(5):
        workers.give("work", number)
    found = [workers.result() for _ in range(5)]
    assert sorted(number for _, number in found) == [0, 1, 2, 3, 4]
    assert {worker for worker, _ in found} == {0, 1}
    assert len(hired) == len(workers) == 2


def test_another_does_the_job_of_a_worker_that_died(hired):
    def do(worker: FakeWorker, number: int) -> int:
        if worker is hired[0]:
            raise RayError("died")
        return number

    workers = crew_of(2, hired, do)
    for number in range(4):
        workers.give("work", number)
    assert sorted(workers.result() for _ in range(4)) == [0, 1, 2, 3]
    assert len(hired) == 3


def test_a_job_that_kills_its_workers_is_given_up(hired):
    def do(_worker: FakeWorker) -> None:
        raise RayError("died\nof many lines")

    workers = crew_of(1, hired, do)
    workers.give("work")
    with pytest.raises(BackendError, match=rf"^{ATTEMPTS} workers of the Ray cluster died at one job \(died\)"):
        workers.result()
    assert len(hired) == ATTEMPTS


def test_what_a_job_raises_is_raised_here(hired):
    def do(_worker: FakeWorker) -> None:
        raise RayTaskError(ImageError("a.jpg: no image"))

    workers = crew_of(1, hired, do)
    workers.give("work")
    with pytest.raises(ImageError, match=r"^a\.jpg: no image$"):
        workers.result()


@pytest.mark.parametrize(
    ("resources", "needed", "expected"),
    [
        ({"CPU": 8.0}, {"num_cpus": 2, "num_gpus": 0}, 4),
        ({"CPU": 8.0, "GPU": 3.0}, {"num_cpus": 2, "num_gpus": 1}, 3),
        ({"CPU": 8.0}, {"num_cpus": 2, "num_gpus": 1}, 0),
        ({"CPU": 1.0}, {"num_cpus": 2, "num_gpus": 0}, 0),
    ],
)
def test_as_many_workers_as_there_is_room_for(resources, needed, expected):
    assert count_workers(resources, needed) == expected


def test_a_cluster_that_is_not_there_is_one_line():
    pytest.importorskip("ray", reason="Ray is not installed")
    with (
        pytest.raises(BackendError, match=r"^no Ray cluster at '127.0.0.1:1'; start one with 'ray start --head'"),
        connected("127.0.0.1:1"),
    ):
        pytest.fail("there is one")


def test_without_ray_it_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(BackendError, match=r"^Ray cannot be imported .*uv sync --extra ray"),
        crew(object, Bundle(write_bundle(tmp_path / "b")), Cluster()),
    ):
        pytest.fail("there is one")
