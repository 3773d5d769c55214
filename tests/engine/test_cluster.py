"""The worker pool runs each job once, replaces dead workers, and raises the errors of jobs."""

from __future__ import annotations

import sys

import pytest

from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.cluster import ATTEMPTS, Cluster, WorkerPool, connected, count_workers, worker_pool
from cvnet_engine.engine.errors import BackendError, ImageError
from tests.engine.fake_ray import FakeRay
from tests.hostile.tiny import write_bundle


class Echo:
    """A worker that returns its argument, and reads no image."""

    def start(self) -> None: ...

    def say(self, number: int) -> int:
        return number

    def read(self) -> None:
        raise ImageError("a.jpg: no image")


def pool_of(size: int, ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> WorkerPool:
    monkeypatch.setitem(sys.modules, "ray", ray)
    return WorkerPool(lambda: ray.spawn(Echo, ()), size)


def said(workers: WorkerPool, count: int) -> list[int]:
    for number in range(count):
        workers.give("say", number)
    return sorted(workers.result() for _ in range(count))


def test_every_job_runs_once(monkeypatch):
    ray = FakeRay()
    workers = pool_of(2, ray, monkeypatch)
    assert said(workers, 5) == [0, 1, 2, 3, 4]
    assert ray.called == ["start", "start", *["say"] * 5]
    assert len(ray.spawned) == len(workers) == 2


@pytest.mark.parametrize("deadly", [0, 2, 4])
def test_the_job_of_a_dead_worker_is_run_by_another(monkeypatch, deadly):
    """It may die at its start or at work."""
    ray = FakeRay(deadly)
    assert said(pool_of(2, ray, monkeypatch), 4) == [0, 1, 2, 3]
    assert len(ray.spawned) == 3


def test_the_other_workers_continue_without_room_for_another(monkeypatch):
    """As after the loss of a machine, with one job left and an idle worker."""
    ray = FakeRay(2, room=2)
    assert said(pool_of(2, ray, monkeypatch), 1) == [0]
    assert len(ray.spawned) == 3


def test_a_job_that_kills_its_workers_fails(monkeypatch):
    ray = FakeRay(*range(1, 2 * ATTEMPTS, 2))
    workers = pool_of(1, ray, monkeypatch)
    workers.give("say", 1)
    with pytest.raises(
        BackendError, match=rf"^{ATTEMPTS} workers of the Ray cluster died while running one job \(died\)"
    ):
        workers.result()
    assert len(ray.spawned) == ATTEMPTS


def test_an_error_of_a_job_is_raised(monkeypatch):
    workers = pool_of(1, FakeRay(), monkeypatch)
    workers.give("read")
    with pytest.raises(ImageError, match=r"^a\.jpg: no image$"):
        workers.result()


@pytest.mark.parametrize(
    ("machines", "needed", "expected"),
    [
        ([{"CPU": 8.0}], {"num_cpus": 2, "num_gpus": 0}, 4),
        ([{"CPU": 8.0, "GPU": 3.0}], {"num_cpus": 2, "num_gpus": 1}, 3),
        ([{"CPU": 8.0}], {"num_cpus": 2, "num_gpus": 1}, 0),
        ([{"CPU": 8.0}, {"CPU": 3.0}], {"num_cpus": 2, "num_gpus": 0}, 5),
        ([{"CPU": 1.0}, {"CPU": 1.0}], {"num_cpus": 2, "num_gpus": 0}, 0),  # Ray would wait for a third
        ([{"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}], {"num_cpus": 2, "num_gpus": 1}, 0),
    ],
)
def test_workers_are_counted_by_machine(machines, needed, expected):
    assert count_workers(machines, needed) == expected


def test_a_missing_cluster_is_one_line():
    pytest.importorskip("ray", reason="Ray is not installed")
    with (
        pytest.raises(BackendError, match=r"^no Ray cluster at '127.0.0.1:1'; start one with 'ray start --head'"),
        connected("127.0.0.1:1"),
    ):
        pytest.fail("there is one")


def test_missing_ray_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(BackendError, match=r"^Ray cannot be imported .*uv sync --inexact --extra ray"),
        worker_pool(object, Bundle(write_bundle(tmp_path / "b")), Cluster()),
    ):
        pytest.fail("there is one")
