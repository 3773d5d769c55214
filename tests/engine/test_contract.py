"""Feeds are checked; `EnginePool` runs one engine per thread at a time, and closes all engines."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from cvnet_engine.engine.contract import Closing, EnginePool, TensorSpec, check_feeds
from cvnet_engine.engine.errors import BackendError

INPUTS = {
    "image": TensorSpec("float32", ("batch", 3, "height", "width")),
    "mask": TensorSpec("uint8", ("batch", "height")),
}
GOOD = {"image": np.zeros((2, 3, 5, 7), np.float32), "mask": np.zeros((2, 5), np.uint8)}


def test_feeds_that_fit_are_accepted():
    check_feeds(GOOD, INPUTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": None}, r"inputs \['image'\] were fed; expected \['image', 'mask'\]"),
        ({"other": np.zeros(1)}, r"inputs \['image', 'mask', 'other'\] were fed"),
        (
            {"image": np.zeros((2, 3, 5, 7))},
            r"'image' is float64 \(2, 3, 5, 7\); expected float32 batchx3xheightxwidth",
        ),
        ({"image": np.zeros((3, 5, 7), np.float32)}, r"'image' is float32 \(3, 5, 7\)"),
        ({"image": np.zeros((2, 4, 5, 7), np.float32)}, r"'image' is float32 \(2, 4, 5, 7\)"),
        ({"mask": np.zeros((2, 6), np.uint8)}, r"'mask' is uint8 \(2, 6\); expected uint8 batchxheight"),
        ({"mask": np.zeros((1, 5), np.uint8)}, r"'mask' is uint8 \(1, 5\)"),
    ],
)
def test_a_feed_that_does_not_fit_is_named(change, message):
    feeds = {name: array for name, array in (GOOD | change).items() if array is not None}
    with pytest.raises(BackendError, match=message):
        check_feeds(feeds, INPUTS)


class Meeting(Closing):
    """An engine that adds its number to x, meets others at a barrier, and refuses a second run meanwhile."""

    def __init__(self, number, barrier=None, fails=False):
        self.inputs = self.outputs = {"x": TensorSpec("float32", ("n",))}
        self._number, self._barrier, self._fails = number, barrier, fails
        self.busy = self.closed = False

    def run(self, feeds):
        assert not self.busy
        self.busy = True
        if self._barrier:
            self._barrier.wait(timeout=60)
        self.busy = False
        if self._fails:
            raise BackendError("no")
        return {"x": feeds["x"] + self._number}

    def close(self):
        self.closed = True
        if self._fails:
            raise BackendError("no")


def test_as_many_threads_run_at_a_time_as_there_are_engines():
    barrier = Barrier(3)
    with EnginePool([Meeting(100 * n, barrier) for n in range(3)]) as engine, ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda n: engine.run({"x": np.array([n])})["x"].item(), range(30)))
    assert [value % 100 for value in found] == list(range(30))
    assert {value // 100 for value in found} == {0, 1, 2}


def test_an_engine_that_fails_is_idle_again():
    engine = EnginePool([Meeting(0, fails=True)])
    for _ in range(3):
        with pytest.raises(BackendError):
            engine.run({"x": np.zeros(1)})


def test_all_are_closed_though_one_fails_at_it():
    engines = [Meeting(0), Meeting(1, fails=True), Meeting(2)]
    with pytest.raises(BackendError):
        EnginePool(engines).close()
    assert [engine.closed for engine in engines] == [True] * 3


def test_closing_waits_for_runs_and_later_runs_are_refused():
    barrier = Barrier(2)
    pool = EnginePool([Meeting(1, barrier)])
    with ThreadPoolExecutor(2) as threads:
        run = threads.submit(pool.run, {"x": np.zeros(1)})
        while pool._idle.qsize():
            time.sleep(0.001)
        closing = threads.submit(pool.close)
        barrier.wait(timeout=60)
        assert run.result()["x"] == 1
        closing.result()
    pool.close()
    with pytest.raises(BackendError, match="closed; open the bundle again"):
        pool.run({"x": np.zeros(1)})


def test_a_forked_process_is_told_to_open_the_bundle_itself():
    pool = EnginePool([Meeting(0)])
    child = os.fork()
    if not child:
        with pytest.raises(BackendError, match="before this process was forked; open the bundle in the child"):
            pool.run({"x": np.zeros(1)})
        pool.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert pool.run({"x": np.ones(1)})["x"] == 1
