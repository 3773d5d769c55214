"""Removal and compaction: counts stay right, readers go on, and a kill at any step loses nothing."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import DAMAGED, SELECT_COUNT
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.engine.disks import small_disk
from tests.galleries import LARGE, assert_equal, features, path, put, read, write

PER_SHARD = 4


def counts(gallery: Path) -> list[int]:
    """The number of images in each shard, recorded and counted."""
    found = []
    for file in sorted(gallery.glob("shard-*.sqlite")):
        with closing(sqlite3.connect(file)) as shard:
            (count,), (rows,) = (shard.execute(q).fetchone() for q in (SELECT_COUNT, "SELECT count(*) FROM images"))
        assert count == rows
        found.append(count)
    return found


def test_removed_images_are_gone_and_counts_are_right(tmp_path):
    write(tmp_path / "g", range(10), PER_SHARD)
    with GalleryWriter.reopen(tmp_path / "g") as writer:
        done: list[int] = []
        writer.remove([path(9), path(1), path(4), path(2)], done.append)
        assert (len(writer), path(4) in writer, sorted(done)) == (6, False, [1, 1, 2])
        assert writer.stamp(path(4)) is None
    assert counts(tmp_path / "g") == [2, 3, 1]
    assert read(tmp_path / "g") == [0, 3, 5, 6, 7, 8]
    with closing(sqlite3.connect(tmp_path / "g/shard-00000.sqlite")) as shard:
        assert shard.execute("SELECT DISTINCT image FROM maps").fetchall() == [(0,), (3,)]
    write(tmp_path / "g", [1, 9, 11], PER_SHARD)
    assert sorted(read(tmp_path / "g")) == [0, 1, 3, 5, 6, 7, 8, 9, 11]
    assert sum(counts(tmp_path / "g")) == 9


def test_everything_can_be_removed(tmp_path):
    write(tmp_path / "g", range(6), PER_SHARD)
    with GalleryWriter.reopen(tmp_path / "g") as writer:
        writer.remove(writer.paths)
    assert (read(tmp_path / "g"), counts(tmp_path / "g")) == ([], [0, 0])
    assert read(write(tmp_path / "g", [3])) == [3]


def test_a_reader_goes_on_and_names_removed_images(tmp_path):
    write(tmp_path / "g", range(6))
    with Gallery(tmp_path / "g") as reader:
        with GalleryWriter.reopen(tmp_path / "g") as writer:
            writer.remove([path(1), path(5)])
            put(writer, [7])  # takes the row of image 5
        assert_equal(reader.features(0), features(0))
        for seed in (1, 5):
            message = rf"/photos/{seed}\.jpg: no longer in the gallery; open the gallery again"
            with pytest.raises(GalleryError, match=message):
                reader.features(seed)
    assert not (tmp_path / "g" / DAMAGED).exists()


# ----------------------------------------------------------------------------------------------- compaction


def size(gallery: Path) -> int:
    return sum(file.stat().st_size for file in gallery.iterdir())


def sparse(gallery: Path) -> Path:
    """A gallery of four images, from which twelve others were removed."""
    write(gallery, range(16), PER_SHARD, sizes=LARGE)
    with GalleryWriter.reopen(gallery) as writer:
        writer.remove([path(seed) for seed in range(16) if seed % 4])
    return gallery


def test_compaction_returns_space_beside_readers(tmp_path):
    before, done = size(sparse(tmp_path / "g")), []
    with Gallery(tmp_path / "g") as reader:
        assert_equal(reader.features(0), features(0, LARGE))

        def step(shards: int) -> None:
            done.append(shards)
            assert_equal(reader.features(1), features(4, LARGE))

        with GalleryWriter.reopen(tmp_path / "g") as writer:
            writer.compact(step)
        for row, seed in enumerate((0, 4, 8, 12)):
            assert_equal(reader.features(row), features(seed, LARGE))
    assert done == [1, 1, 1, 1]
    assert size(tmp_path / "g") < 0.5 * before
    assert (read(tmp_path / "g", LARGE), counts(tmp_path / "g")) == ([0, 4, 8, 12], [1, 1, 1, 1])


def test_compaction_writes_temporary_files_in_the_gallery(tmp_path, monkeypatch):
    sparse(tmp_path / "g")
    monkeypatch.setenv("SQLITE_TMPDIR", "/absent")
    with GalleryWriter.reopen(tmp_path / "g") as writer:
        folders: list[str] = []
        writer.compact(lambda _: folders.append(os.environ["SQLITE_TMPDIR"]))
    assert set(folders) == {str(tmp_path / "g")}
    assert os.environ["SQLITE_TMPDIR"] == "/absent"
    assert {file.suffix for file in (tmp_path / "g").iterdir()} <= {".json", ".lock", ".sqlite", ".columns"}


def test_a_full_disk_stops_a_compaction_and_loses_nothing(tmp_path):
    with small_disk(tmp_path / "disk", 40_000) as disk:
        sparse(disk / "g")
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "reserve").write_bytes(bytes(free - 300_000))
        with (
            GalleryWriter.reopen(disk / "g") as writer,
            pytest.raises(GalleryError, match="free some space and run the same command again"),
        ):
            writer.compact()
        assert read(disk / "g", LARGE) == [0, 4, 8, 12]
        (disk / "reserve").unlink()
        with GalleryWriter.reopen(disk / "g") as writer:
            writer.compact()
        assert read(disk / "g", LARGE) == [0, 4, 8, 12]


# ---------------------------------------------------------------------------------------------------- kills


@pytest.mark.parametrize("operation", ["index", "merge", "remove", "compact"])
def test_a_kill_at_any_step_loses_nothing(tmp_path, operation):
    command = [sys.executable, "-m", "tests.engine.gallery.kills", operation, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 5
