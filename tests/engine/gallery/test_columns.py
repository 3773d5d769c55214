"""Columns kept beside a shard open a gallery at once; where they do not fit it, they are done without."""

from __future__ import annotations

import gc
import os
import random
import shutil
import sqlite3
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.columns import ENTRY, HEADER_BYTES, ROW_BYTES, columns_file, open_columns
from cvnet_engine.engine.gallery.inspection import repair, verify
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import connect, read_contents, shard_file
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.galleries import INFO, STAMP, assert_equal, features

COUNT, PER_SHARD = 5, 2
PATHS = [Path(f"/photos/{n}.jpg") for n in range(COUNT)]


@pytest.fixture
def gallery(tmp_path):
    with GalleryWriter(tmp_path / "g", INFO, images_per_shard=PER_SHARD) as writer:
        for n, path in enumerate(PATHS):
            writer.put(path, STAMP, features(n))
    return tmp_path / "g"


def kept(gallery: Path) -> list[bool]:
    """Whether each shard has columns that fit it."""
    found = []
    for number in range(len(list(gallery.glob("*.sqlite")))):
        shard = connect(shard_file(gallery, number), readonly=True)
        found.append(open_columns(shard_file(gallery, number), read_contents(shard)) is not None)
        shard.close()
    return found


def damaged(opened: Gallery) -> Iterator[tuple[Path, str]]:
    """Images that are not what was stored, and why, every row having been read."""
    for row in range(len(opened)):
        try:
            opened.features(row)
        except GalleryError as error:
            yield opened.paths[row], str(error)


def require_whole(gallery: Path, expected: list[int]) -> None:
    """The gallery holds these images' features, in this order."""
    with Gallery(gallery) as opened:
        assert len(opened) == len(opened.paths) == len(expected)
        assert np.array_equal(opened.descriptors[:], [features(n).descriptor for n in expected])
        for row, n in enumerate(expected):
            assert_equal(opened.features(row), features(n))
        assert list(damaged(opened)) == []


def execute(gallery: Path, statement: str, *values: object, number: int = 0) -> None:
    with sqlite3.connect(shard_file(gallery, number)) as shard:
        assert shard.execute(statement, values).rowcount
    shard.close()


def put(gallery: Path, number: int, seed: int) -> None:
    with GalleryWriter(gallery, INFO, images_per_shard=PER_SHARD) as writer:
        writer.put(PATHS[number], STAMP, features(seed))


def test_every_shard_has_its_columns_once_the_writer_is_done_and_full_ones_before(tmp_path):
    with GalleryWriter(tmp_path / "g", INFO, images_per_shard=PER_SHARD) as writer:
        for n, path in enumerate(PATHS[:3]):
            writer.put(path, STAMP, features(n))
        assert kept(tmp_path / "g") == [True, False]
        require_whole(tmp_path / "g", [0, 1, 2])
    assert kept(tmp_path / "g") == [True, True]
    require_whole(tmp_path / "g", [0, 1, 2])


def test_opening_reads_no_row_of_a_shard_whose_columns_are_kept(gallery):
    execute(gallery, "UPDATE images SET descriptor = x'00'")
    with Gallery(gallery) as opened:
        assert opened.paths == PATHS
        assert np.array_equal(opened.descriptors[0], features(0).descriptor)
        with pytest.raises(GalleryError, match=r"/photos/0\.jpg: features damaged"):
            opened.features(0)  # both are looked at
    with GalleryWriter(gallery, INFO) as writer:  # the reader's note has the writer look at everything
        assert "2 images of shard-00000.sqlite were lost" in writer.repairs


def test_a_replaced_image_is_read_from_its_row_until_the_columns_are_written_anew(gallery):
    with GalleryWriter(gallery, INFO, images_per_shard=PER_SHARD) as writer:
        writer.put(PATHS[1], STAMP, features(9))
        assert kept(gallery) == [False, True, True]
        require_whole(gallery, [0, 9, 2, 3, 4])
    assert kept(gallery) == [True, True, True]
    require_whole(gallery, [0, 9, 2, 3, 4])


def test_a_touched_image_leaves_the_columns_as_they_are(gallery):
    before = columns_file(shard_file(gallery, 0)).stat()
    with GalleryWriter(gallery, INFO) as writer:
        writer.touch(PATHS[0], replace(STAMP, mtime_ns=5))
        assert writer.stamp(PATHS[0]) == replace(STAMP, mtime_ns=5)
    assert columns_file(shard_file(gallery, 0)).stat().st_ino == before.st_ino
    require_whole(gallery, [0, 1, 2, 3, 4])


def test_columns_of_an_earlier_state_do_not_count(gallery):
    """A shard brought back from a copy, or made anew, may hold as many images as the columns that are beside it."""
    old = columns_file(shard_file(gallery, 0)).read_bytes()
    put(gallery, 1, seed=9)
    columns_file(shard_file(gallery, 0)).write_bytes(old)
    assert kept(gallery) == [False, True, True]
    require_whole(gallery, [0, 9, 2, 3, 4])
    shutil.copy(columns_file(shard_file(gallery, 1)), columns_file(shard_file(gallery, 0)))
    assert kept(gallery) == [False, True, True]
    GalleryWriter(gallery, INFO).close()
    assert kept(gallery) == [True, True, True]


def test_a_snapshot_keeps_its_descriptors_whatever_is_written_meanwhile(gallery):
    with Gallery(gallery) as opened:
        put(gallery, 1, seed=9)
        assert np.array_equal(opened.descriptors[1], features(1).descriptor)
        columns_file(shard_file(gallery, 1)).unlink()
        assert np.array_equal(opened.descriptors[:], [features(n).descriptor for n in range(COUNT)])


def test_a_gallery_that_nobody_holds_lets_its_files_go_at_once(gallery):
    """A server opens a growing one again and again, each time with a mapped file a shard."""
    gc.disable()
    try:
        opened = Gallery(gallery)
        there = weakref.ref(opened)
        assert np.array_equal(opened.descriptors[0], features(0).descriptor)
        opened.close()
        del opened
        assert there() is None
    finally:
        gc.enable()


def test_an_image_that_has_gone_since_is_no_damage(gallery):
    with Gallery(gallery) as opened:
        execute(gallery, "DELETE FROM images WHERE id = 1")
        execute(gallery, "UPDATE state SET number = number + 1")  # as whoever removes it does
        with pytest.raises(GalleryError, match="no longer in the gallery; open the gallery again"):
            opened.features(1)
    assert not (gallery / "damaged").exists()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "of other content": lambda file: file.write_bytes(b"columns" * 10_000),
    "cut": lambda file: os.truncate(file, file.stat().st_size - 1),
    "longer": lambda file: os.truncate(file, file.stat().st_size + 1),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a pipe": lambda file: (file.unlink(), os.mkfifo(file)),
    "a device": lambda file: (file.unlink(), file.symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_columns_that_are_none_are_done_without(gallery, damage):
    DAMAGES[damage](columns_file(shard_file(gallery, 0)))
    assert kept(gallery) == [False, True, True]
    require_whole(gallery, [0, 1, 2, 3, 4])
    put(gallery, 4, seed=4)
    require_whole(gallery, [0, 1, 2, 3, 4])


def test_a_flipped_bit_anywhere_in_the_columns_is_done_without_or_named_where_it_is_used(gallery):
    file, rng = columns_file(shard_file(gallery, 0)), random.Random(0)
    whole = file.read_bytes()
    descriptors_end = HEADER_BYTES + PER_SHARD * ROW_BYTES * 3 // 2
    places = [rng.randrange(HEADER_BYTES, descriptors_end) for _ in range(30)]
    places += [*range(36), *(rng.randrange(descriptors_end, len(whole)) for _ in range(30))]
    errors = []
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.randrange(8)
        file.write_bytes(changed)
        try:
            require_whole(gallery, [0, 1, 2, 3, 4])
        except GalleryError as error:
            errors.append(str(error))
            require_whole(gallery, [0, 1, 2, 3, 4])  # the file has been removed
    assert len(errors) == 30
    assert all("run the same command again: it does not need this file" in error for error in errors)
    assert not any("\n" in error for error in errors)
    assert len(whole) == descriptors_end + PER_SHARD * ENTRY.itemsize + sum(len(str(path)) for path in PATHS[:2])


def test_damaged_images_are_all_named(gallery):
    file = columns_file(shard_file(gallery, 1))
    changed = bytearray(file.read_bytes())
    changed[HEADER_BYTES] ^= 1
    file.write_bytes(changed)
    execute(gallery, "UPDATE maps SET data = zeroblob(3) WHERE image = 1 AND scale = 2")
    with Gallery(gallery) as opened:
        assert [path for path, _ in damaged(opened)] == [PATHS[1], PATHS[2]]


def test_a_link_in_the_place_of_unfinished_columns_is_not_written_through(gallery, tmp_path):
    (tmp_path / "mine").write_text("kept")
    columns_file(shard_file(gallery, 2)).with_suffix(".columns-new").symlink_to(tmp_path / "mine")
    put(gallery, 4, seed=8)
    assert (tmp_path / "mine").read_text() == "kept"
    require_whole(gallery, [0, 1, 2, 3, 8])


def test_verify_names_columns_in_which_a_descriptor_is_damaged_and_repair_makes_them_anew(gallery):
    file = columns_file(shard_file(gallery, 1))
    data = bytearray(file.read_bytes())
    data[HEADER_BYTES + 100] ^= 1
    file.write_bytes(data)
    assert list(verify(gallery).damaged) == [file]
    repair(gallery)
    assert verify(gallery).damaged == {}
    require_whole(gallery, list(range(len(PATHS))))
