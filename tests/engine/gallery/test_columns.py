"""Columns files open a gallery at once, and are ignored when stale; ranges of shards hold what the gallery held."""

from __future__ import annotations

import gc
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.errors import GalleryError, ShardsLostError
from cvnet_engine.engine.gallery.columns import columns_file, open_columns
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import connect, read_contents, shard_file
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.galleries import INFO, STAMP, assert_equal, execute, features, path, write

COUNT, PER_SHARD = 5, 2
PATHS = [path(n) for n in range(COUNT)]


@pytest.fixture
def gallery(tmp_path):
    return write(tmp_path / "g", range(COUNT), PER_SHARD)


def up_to_date(gallery: Path) -> list[bool]:
    """For each shard, True if its columns file is up to date."""
    found = []
    for number in range(len(list(gallery.glob("*.sqlite")))):
        shard = connect(shard_file(gallery, number), readonly=True)
        found.append(open_columns(shard_file(gallery, number), read_contents(shard)) is not None)
        shard.close()
    return found


def require(gallery: Path, expected: list[int]) -> None:
    """The gallery has these images' features, in this order."""
    with Gallery(gallery) as opened:
        assert np.array_equal(opened.descriptors[:], [features(n).descriptor for n in expected])
        for row, n in enumerate(expected):
            assert_equal(opened.features(row), features(n))


def replace_image(gallery: Path, number: int, seed: int) -> None:
    with GalleryWriter(gallery, INFO, images_per_shard=PER_SHARD) as writer:
        writer.put(path(number), STAMP, features(seed))


def test_columns_are_written_when_a_shard_is_full_or_closed(tmp_path):
    with GalleryWriter(tmp_path / "g", INFO, images_per_shard=PER_SHARD) as writer:
        for n, path in enumerate(PATHS[:3]):
            writer.put(path, STAMP, features(n))
        assert up_to_date(tmp_path / "g") == [True, False]
        require(tmp_path / "g", [0, 1, 2])
    assert up_to_date(tmp_path / "g") == [True, True]
    require(tmp_path / "g", [0, 1, 2])


def test_a_replaced_image_makes_columns_stale(gallery):
    with GalleryWriter(gallery, INFO, images_per_shard=PER_SHARD) as writer:
        writer.put(PATHS[1], STAMP, features(9))
        assert up_to_date(gallery) == [False, True, True]
        require(gallery, [0, 9, 2, 3, 4])
    assert up_to_date(gallery) == [True, True, True]
    require(gallery, [0, 9, 2, 3, 4])


def test_a_touched_image_leaves_columns_up_to_date(gallery):
    before = columns_file(shard_file(gallery, 0)).stat()
    with GalleryWriter(gallery, INFO) as writer:
        writer.touch(PATHS[0], replace(STAMP, mtime_ns=5))
        assert writer.stamp(PATHS[0]) == replace(STAMP, mtime_ns=5)
    assert columns_file(shard_file(gallery, 0)).stat().st_ino == before.st_ino
    require(gallery, [0, 1, 2, 3, 4])


def test_columns_of_another_state_are_stale(gallery):
    """A shard brought back from a copy, or made anew, may hold as many images as the columns that are beside it."""
    old = columns_file(shard_file(gallery, 0)).read_bytes()
    replace_image(gallery, 1, seed=9)
    columns_file(shard_file(gallery, 0)).write_bytes(old)
    assert up_to_date(gallery) == [False, True, True]
    require(gallery, [0, 9, 2, 3, 4])
    shutil.copy(columns_file(shard_file(gallery, 1)), columns_file(shard_file(gallery, 0)))
    assert up_to_date(gallery) == [False, True, True]
    GalleryWriter(gallery, INFO).close()
    assert up_to_date(gallery) == [True, True, True]


def test_an_open_gallery_keeps_its_descriptors(gallery):
    with Gallery(gallery) as opened:
        replace_image(gallery, 1, seed=9)
        assert np.array_equal(opened.descriptors[1], features(1).descriptor)
        columns_file(shard_file(gallery, 1)).unlink()
        assert np.array_equal(opened.descriptors[:], [features(n).descriptor for n in range(COUNT)])


def test_an_unused_gallery_unmaps_its_files_at_once(gallery):
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


def test_a_removed_image_is_not_damage(gallery):
    with Gallery(gallery) as opened:
        execute(gallery, "DELETE FROM images WHERE id = 1")
        execute(gallery, "UPDATE state SET number = number + 1")  # as whoever removes it does
        with pytest.raises(GalleryError, match="no longer in the gallery; open the gallery again"):
            opened.features(1)
    assert not (gallery / "damaged").exists()


def test_unfinished_columns_are_not_written_through_a_link(gallery, tmp_path):
    (tmp_path / "mine").write_text("kept")
    columns_file(shard_file(gallery, 2)).with_suffix(".columns-new").symlink_to(tmp_path / "mine")
    replace_image(gallery, 4, seed=8)
    assert (tmp_path / "mine").read_text() == "kept"
    require(gallery, [0, 1, 2, 3, 8])


# ------------------------------------------------------------------------------------------------------ ranges


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    return write(tmp_path / "g", range(7), PER_SHARD)


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [7]), (2, [4, 3]), (3, [2, 2, 3]), (4, [2, 2, 2, 1]), (9, [2, 2, 2, 1])]
)
def test_ranges_divide_the_gallery(seven, count, sizes):
    with Gallery(seven) as whole:
        ranges = whole.shard_ranges(count)
        assert [len(part_range) for part_range in ranges] == sizes
        opened = [Gallery(part_range.gallery, part_range) for part_range in ranges]
        assert [path for part in opened for path in part.paths] == list(whole.paths)
        assert np.array_equal(np.concatenate([part.descriptors[:] for part in opened]), whole.descriptors[:])
        places = [(part, place) for part in opened for place in range(len(part))]
        for row, (part, place) in enumerate(places):
            assert_equal(part.features(place), whole.features(row))
            assert part.map_size(place) == whole.map_size(row)


def test_an_empty_gallery_has_no_images_in_its_ranges(tmp_path):
    GalleryWriter(tmp_path / "g", INFO).close()
    with Gallery(tmp_path / "g") as whole:
        assert sum(map(len, whole.shard_ranges(3))) == 0


def test_added_images_do_not_change_a_range(seven):
    with Gallery(seven) as whole:
        *_, last = whole.shard_ranges(2)
        write(seven, range(7, 11), PER_SHARD)
        part = Gallery(last.gallery, last)
        assert list(part.paths) == list(whole.paths)[-len(last) :]
        assert np.array_equal(part.descriptors[:], whole.descriptors[-len(last) :])
        assert_equal(part.features(len(part) - 1), whole.features(len(whole) - 1))


def test_a_range_with_changed_images_is_refused(seven):
    with Gallery(seven) as whole:
        first, last = whole.shard_ranges(2)
        replace_image(seven, 0, seed=50)
        with GalleryWriter.reopen(seven) as writer:
            writer.remove([path(6)])
    for part_range in (first, last):
        with pytest.raises(ShardsLostError, match="open the gallery again"):
            Gallery(part_range.gallery, part_range)
