"""Scheduler of the engines: one thread on which the jobs of all requests take turns, step by step.

A job is an iterator whose every step is a piece of work (features of an image, a batch of pairs) that ends in an event.
The thread takes one step of each job in turn, so a short job is done after its own few steps, however long the others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cvnet_engine.server.problems import busy

CAPACITY = 32  # jobs under way and waiting


@dataclass(frozen=True)
class Finished:
    """The last event of a job: `error` is what stopped it, None where it came to its end."""

    error: Exception | None = None


Event = object  # what a job's steps yield, and at last Finished


@dataclass(eq=False)
class Job:
    """Work for the engines.

    Attributes:
        steps: the work; run and closed on the scheduler's thread alone.
        deliver: called with each event on that thread; must not wait.
    """

    steps: Iterator[Event]
    deliver: Callable[[Event], None]
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Give up: no more steps are taken and nothing more is delivered once the step under way is done."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()


class Scheduler:
    """Takes turns among jobs. `start` runs them on a thread; without it, `turn` does, one step at a time."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._jobs: deque[Job] = deque()  # the next in turn on the left; one whose turn it is stands there still
        self._changed = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._jobs)

    def require_room(self) -> None:
        """
        Raises:
            ProblemError: 503, where as many jobs as there may be are under way.
        """
        if len(self._jobs) >= self._capacity:
            raise busy(f"{self._capacity} requests are running, which is the limit; try again later")

    def submit(self, steps: Iterator[Event], deliver: Callable[[Event], None]) -> Job:
        """Line up a job.

        Raises:
            ProblemError: 503, see `require_room`, or where the server is stopping.
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
        """Take one step of the next job; False where there is none."""
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
        """Take a step of a job and deliver its event; whether there is more to do."""
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
        """Stop after the current step; jobs that remain end with a `busy` error."""
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
    """Let a generator's resources go; other iterators hold none."""
    if hasattr(steps, "close"):
        steps.close()
