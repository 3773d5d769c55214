"""A journal gives back what it was given, for the facts that it was given for, and nothing else."""

import os
import random
import sqlite3

import numpy as np
import pytest

from cvnet_engine.benchmarks.accuracy.journal import Journal, content, query_facts
from cvnet_engine.engine.errors import DatasetError


def test_arrays_survive_the_process(tmp_path):
    arrays = {"descriptor": np.arange(4, dtype=np.float32), "seconds": np.array(1.5)}
    with Journal(tmp_path / "new" / "j.sqlite") as journal:
        journal.put(("query", "model", (1, 2)), arrays)
    with Journal(tmp_path / "new" / "j.sqlite") as journal:
        found = journal.get(("query", "model", (1, 2)))
        assert journal.get(("query", "other model", (1, 2))) is None
    assert {name: array.tolist() for name, array in found.items()} == {"descriptor": [0, 1, 2, 3], "seconds": 1.5}
    assert found["descriptor"].dtype == np.float32


def test_a_row_is_replaced():
    with Journal(None) as journal:
        for value in (1, 2):
            journal.put(("x",), {"a": np.array(value)})
        assert journal.get(("x",))["a"] == 2


@pytest.mark.parametrize("change", ["model", "content", "crop", "database"])
def test_facts_change_with_whatever_a_result_depends_on(tmp_path, change):
    file, other = tmp_path / "a.jpg", tmp_path / "b.jpg"
    file.write_bytes(b"content")
    other.write_bytes(b"CONTENT")
    before = query_facts("model", file, (0, 0, 1, 1), "database")
    assert query_facts("model", file, (0, 0, 1, 1), "database") == before
    after = query_facts(
        "new" if change == "model" else "model",
        other if change == "content" else file,
        None if change == "crop" else (0, 0, 1, 1),
        "new" if change == "database" else "database",
    )
    assert after != before


def test_a_file_is_known_by_its_content(tmp_path):
    file, copy = tmp_path / "a.jpg", tmp_path / "copies" / "b.jpg"
    copy.parent.mkdir()
    for path in (file, copy):
        path.write_bytes(b"1234")
    os.utime(copy, ns=(0, 0))
    assert content(copy) == content(file)
    copy.write_bytes(b"1235")
    assert content(copy) != content(file)


def test_damage_is_named(tmp_path):
    file = tmp_path / "j.sqlite"
    with Journal(file) as journal:
        journal.put(("x",), {"a": np.arange(1000)})
    with sqlite3.connect(file) as connection:
        (stored,) = connection.execute("SELECT arrays FROM work").fetchone()
        flipped = stored[:300] + bytes([stored[300] ^ 1]) + stored[301:]
        connection.execute("UPDATE work SET arrays = ?", (flipped,))
    with Journal(file) as journal, pytest.raises(DatasetError, match=r"j\.sqlite: journal not usable"):
        journal.get(("x",))


def test_something_else_than_a_journal(tmp_path):
    (tmp_path / "j.sqlite").write_text("no database " * 100)
    with pytest.raises(DatasetError, match="delete the file to start again"):
        Journal(tmp_path / "j.sqlite")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "j.sqlite")
    with pytest.raises(DatasetError, match="a pipe"):
        Journal(tmp_path / "j.sqlite")


def test_flipped_bits_anywhere_are_an_error_or_change_nothing(tmp_path):
    rng = random.Random(0)
    with Journal(tmp_path / "whole.sqlite") as journal:
        for n in range(5):
            journal.put((n,), {"a": np.arange(n)})
    whole, refused = (tmp_path / "whole.sqlite").read_bytes(), 0
    for _ in range(150):
        flipped = bytearray(whole)
        for _ in range(10):
            flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        (tmp_path / "j.sqlite").write_bytes(flipped)
        try:
            with Journal(tmp_path / "j.sqlite") as journal:
                found = [journal.get((n,)) for n in range(5)]
            assert all(f is None or f["a"].tolist() == list(range(n)) for n, f in enumerate(found))
        except DatasetError:
            refused += 1
    assert refused > 20
