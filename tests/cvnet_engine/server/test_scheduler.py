"""Turns, bounds and cancellation, one step at a time."""

from __future__ import annotations

import pytest

from cvnet_engine.server.problems import ProblemError
from cvnet_engine.server.scheduler import Finished, Scheduler


def steps(name, count, log):
    """`count` steps, and what became of them."""
    try:
        for step in range(count):
            log.append(f"{name}{step}")
            yield step
    finally:
        log.append(f"{name} closed")


def run(scheduler: Scheduler) -> None:
    while scheduler.turn():
        pass


def test_jobs_take_turns():
    scheduler, log = Scheduler(), []
    scheduler.submit(steps("long", 100, log), lambda _: None)
    scheduler.turn()
    scheduler.submit(steps("short", 2, log), lambda _: None)
    run(scheduler)
    assert log[:6] == ["long0", "long1", "short0", "long2", "short1", "long3"]
    assert log.index("short closed") == 6
    assert log[-2:] == ["long99", "long closed"]


def test_events_arrive_in_order_and_end_with_finished():
    scheduler, events = Scheduler(), []
    scheduler.submit(iter("abc"), events.append)
    run(scheduler)
    assert events == ["a", "b", "c", Finished()]
    assert len(scheduler) == 0


def test_an_error_ends_its_job_alone():
    def failing():
        yield "a"
        raise KeyError("b")

    scheduler, failed, other = Scheduler(), [], []
    scheduler.submit(failing(), failed.append)
    scheduler.submit(iter("xyz"), other.append)
    run(scheduler)
    assert failed[0] == "a"
    assert isinstance(failed[1].error, KeyError)
    assert other == ["x", "y", "z", Finished()]


def test_a_cancelled_job_is_closed_without_another_step():
    scheduler, log, events = Scheduler(), [], []
    job = scheduler.submit(steps("a", 9, log), events.append)
    scheduler.turn()
    job.cancel()
    run(scheduler)
    assert log == ["a0", "a closed"]
    assert events == [0]


def test_a_job_cancelled_during_a_step_delivers_nothing():
    scheduler, events = Scheduler(), []

    def own():
        job.cancel()
        yield "late"
        pytest.fail("went on")

    job = scheduler.submit(own(), events.append)
    run(scheduler)
    assert events == []
    assert len(scheduler) == 0


def test_the_queue_is_bounded():
    scheduler = Scheduler(capacity=2)
    for _ in range(2):
        scheduler.submit(iter("a"), lambda _: None)
    with pytest.raises(ProblemError) as refused:
        scheduler.submit(iter("a"), lambda _: None)
    assert refused.value.status == 503
    assert int(refused.value.headers["Retry-After"]) > 0
    run(scheduler)
    scheduler.submit(iter("a"), lambda _: None)


def test_a_cancelled_job_makes_room():
    scheduler = Scheduler(capacity=1)
    scheduler.submit(iter("a"), lambda _: None).cancel()
    scheduler.turn()
    scheduler.require_room()


def test_closing_ends_unfinished_jobs_with_an_error():
    scheduler, log, events = Scheduler(), [], []
    scheduler.submit(steps("a", 9, log), events.append)
    scheduler.turn()
    scheduler.close()
    assert log == ["a0", "a closed"]
    assert events[-1].error.status == 503
    with pytest.raises(ProblemError, match="stopping"):
        scheduler.submit(iter("a"), events.append)


def test_the_thread_runs_all_submitted_jobs():
    import queue

    scheduler, events = Scheduler(), queue.Queue()
    scheduler.start()
    for name in ("ab", "cd"):
        scheduler.submit(iter(name), events.put)
    done = [events.get(timeout=60) for _ in range(6)]
    scheduler.close()
    assert {event for event in done if isinstance(event, str)} == set("abcd")
    assert done.count(Finished()) == 2
