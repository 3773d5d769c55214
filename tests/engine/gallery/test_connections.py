"""Connections are bounded in number, may be used by several threads, and are all closed."""

from __future__ import annotations

import sqlite3

import pytest

from cvnet_engine.engine.gallery import shards
from cvnet_engine.engine.gallery.shards import Connections, create_shard, shard_file


@pytest.fixture
def pool(tmp_path):
    with Connections() as made:
        for number in range(3):
            create_shard(shard_file(tmp_path, number)).close()
            made.files.append(shard_file(tmp_path, number))
        yield made


def is_open(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return False
    return True


def test_the_longest_unused_goes_first(pool, monkeypatch):
    monkeypatch.setattr(shards, "MOST_CONNECTIONS", 2)
    found = []
    for number in (0, 1, 0, 2):
        with pool.use(number) as shard:
            found.append(shard)
    assert found[0] is found[2]
    assert [is_open(shard) for shard in found] == [True, False, True, True]


def test_two_users_of_a_shard_have_a_connection_each_of_which_one_is_kept(pool):
    with pool.use(0) as one, pool.use(0) as other:
        assert one is not other
    assert is_open(one) != is_open(other)


def test_closed_connections_are_not_opened_again_and_those_in_use_close_afterwards(pool):
    with pool.use(1) as kept, pool.use(0) as used:
        pass
    with pool.use(0) as used:
        pool.close()
        assert is_open(used)
    assert not is_open(used)
    assert not is_open(kept)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"), pool.use(0):
        pass
