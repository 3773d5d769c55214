"""Every way to spread work uses the threads that there are, and none of them twice."""

from __future__ import annotations

import pytest

from cvnet_engine.benchmarks.throughput.worker_pool import BATCH, Spread, spreads


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 6, 16, 64])
def test_no_way_takes_more_threads_than_there_are(threads):
    found = spreads(threads)
    assert len(set(found)) == len(found)
    assert all(1 <= s.threads * s.workers <= threads for s in found)
    assert found[:2] == [Spread(1, 1, 1, threads), Spread(BATCH, 1, 1, threads)]


def test_two_threads():
    assert spreads(2)[2:] == [Spread(1, 2, 1, 1), Spread(1, 1, 2, 1)]


def test_sixteen_threads():
    assert spreads(16)[2:] == [Spread(1, 4, 1, 4), Spread(1, 1, 4, 4), Spread(1, 2, 2, 4)]
