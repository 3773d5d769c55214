"""Round-robin scheduler that runs the jobs of all requests on one thread, step by step.

A job is an iterator; each step does some work (features of an image, a batch of pairs) and yields an event. The thread
runs one step of each job in turn, so a short job does not wait for long ones to finish.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cvnet_engine.server.problems import busy

CAPACITY = 32  # unfinished jobs


@dataclass(frozen=True)
class Finished:
    """The last event of a job, with the error that stopped it; None if it completed."""

    error: Exception | None = None


Event = object  # yielded by a job's steps; the last is Finished


@dataclass(eq=False)
class Job:
    """A job for the engines.

    Attributes:
        steps: the work, run and closed only on the scheduler's thread, or by `Scheduler.close`.
        deliver: called with each event on that thread; must not block.
    """

    steps: Iterator[Event]
    deliver: Callable[[Event], None]
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Stop the job after the current step, without delivering any more events."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()


class Scheduler:
    """Runs jobs in turn, one step each: on a thread after `start`, or one step per call of `turn`."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._jobs: deque[Job] = deque()  # next job on the left, where it stays while its step runs
        self._changed = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._jobs)

    def require_room(self) -> None:
        """Check that another job can be submitted.

        Raises:
            ProblemError: 503, the number of unfinished jobs has reached the capacity.
        """
        if len(self._jobs) >= self._capacity:
            raise busy(f"{self._capacity} requests are running, which is the limit; try again later")

    def submit(self, steps: Iterator[Event], deliver: Callable[[Event], None]) -> Job:
        """Queue a job.

        Raises:
            ProblemError: 503, too many jobs (see `require_room`) or the server is stopping.
        """
        job = Job(steps, deliver)
        with self._changed:
            if self._stopped:
                raise busy("the server is stopping")
            self.require_room()
            self._jobs.append(job)
            self._changed.notify()
        return job

    def turn(self) -> bool:
        """Run one step of the next job; return False if there is no job."""
        if not self._jobs:
            return False
        job = self._jobs[0]
        goes_on = self._step(job)
        with self._changed:
            self._jobs.popleft()
            if goes_on:
                self._jobs.append(job)
        return True

    def _step(self, job: Job) -> bool:
        """Run one step of a job and deliver its event; return True if the job goes on."""
        try:
            if not job.cancelled:
                event = next(job.steps)
                if not job.cancelled:
                    job.deliver(event)
                    return True
            close(job.steps)
        except StopIteration:
            job.deliver(Finished())
        except Exception as error:
            close(job.steps)
            job.deliver(Finished(error))
        return False

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped:
            if not self.turn():
                with self._changed:
                    self._changed.wait_for(lambda: self._jobs or self._stopped)

    def close(self) -> None:
        """Stop after the current step; remaining jobs end with a `busy` error."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread:
            self._thread.join()
        while self._jobs:
            job = self._jobs.popleft()
            close(job.steps)
            job.deliver(Finished(busy("the server is stopping")))


def close(steps: Iterator[Event]) -> None:
    """Close a generator, which releases its resources; other iterators have none."""
    if hasattr(steps, "close"):
        steps.close()
