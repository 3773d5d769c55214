"""Shares of a gallery hold together what it held, though it has grown since; what was changed is noticed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.errors import ShardsLostError
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.galleries import INFO, STAMP, assert_equal, features

COUNT = 7


def put(gallery: Path, numbers: range, seed: int = 0) -> None:
    with GalleryWriter(gallery, INFO, 2) as writer:
        for number in numbers:
            writer.put(Path(f"/{number}.jpg"), STAMP, features(number + seed))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "g"
    put(folder, range(COUNT))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "g")


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [7]), (2, [4, 3]), (3, [2, 2, 3]), (4, [2, 2, 2, 1]), (9, [2, 2, 2, 1])]
)
def test_ranges_are_the_gallery(folder, count, sizes):
    with Gallery(folder) as whole:
        ranges = whole.shard_ranges(count)
        assert [len(share) for share in ranges] == sizes
        opened = [Gallery(share.gallery, share) for share in ranges]
        assert [path for part in opened for path in part.paths] == list(whole.paths)
        assert np.array_equal(np.concatenate([part.descriptors[:] for part in opened]), whole.descriptors[:])
        places = [(part, place) for part in opened for place in range(len(part))]
        for row, (part, place) in enumerate(places):
            assert_equal(part.features(place), whole.features(row))
            assert part.map_size(place) == whole.map_size(row)


def test_an_empty_gallery_is_one_empty_range_or_none(tmp_path):
    GalleryWriter(tmp_path / "g", INFO).close()
    with Gallery(tmp_path / "g") as whole:
        assert sum(map(len, whole.shard_ranges(3))) == 0


def test_what_is_added_does_not_change_a_range(folder):
    with Gallery(folder) as whole:
        *_, last = whole.shard_ranges(2)
        put(folder, range(COUNT, COUNT + 4))
        part = Gallery(last.gallery, last)
        assert list(part.paths) == list(whole.paths)[-len(last) :]
        assert np.array_equal(part.descriptors[:], whole.descriptors[-len(last) :])
        assert_equal(part.features(len(part) - 1), whole.features(len(whole) - 1))


def test_what_was_replaced_or_removed_is_noticed(folder):
    with Gallery(folder) as whole:
        first, last = whole.shard_ranges(2)
        put(folder, range(1), seed=50)
        with GalleryWriter.reopen(folder) as writer:
            writer.remove([Path("/6.jpg")])
    for share in (first, last):
        with pytest.raises(ShardsLostError, match="open the gallery again"):
            Gallery(share.gallery, share)
