"""A gallery that was made in parts equals one that was made in one go, whatever was stopped on the way."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import GalleryError
from engine.features import Features
from engine.gallery import parts
from engine.gallery.indexing import IndexReport, find_images, index
from engine.gallery.parts import cut, make, stale, take_in
from engine.gallery.reader import Gallery
from engine.gallery.writer import GalleryWriter
from tests.engine.fakes import INFO, FakeRetriever, assert_equal
from tests.pictures import photo

COUNT = 11


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    (tmp_path / "photos").mkdir()
    for number in range(COUNT):
        photo(tmp_path / "photos" / f"{number:02}.jpg", seed=number)
    (tmp_path / "photos" / "04.jpg").write_bytes(b"no image")
    return find_images([tmp_path / "photos"])


def in_one_go(photos: list[Path], folder: Path) -> Path:
    with GalleryWriter(folder, INFO) as writer:
        index(photos, FakeRetriever(), writer, None, IndexReport())
    return folder


def in_parts(photos: list[Path], folder: Path, retriever: FakeRetriever | None = None) -> IndexReport:
    report = IndexReport()
    with GalleryWriter(folder, INFO) as writer:
        found = cut(stale(photos, writer, report, lambda _: None), folder, INFO, images=4)
        for part in reversed(found):  # workers finish as they like
            make(part, INFO, retriever or FakeRetriever())
        for part in found:
            take_in(part, writer, report)
    return report


def assert_same(one: Path, other: Path) -> None:
    with Gallery(one) as a, Gallery(other) as b:
        assert list(a.paths) == list(b.paths)
        assert len(a)
        for row in range(len(a)):
            assert a.stamp(row) == b.stamp(row)
            assert_equal(a.features(row), b.features(row))


def test_rows_are_those_of_one_go(photos, tmp_path):
    report = in_parts(photos, tmp_path / "parts")
    assert_same(tmp_path / "parts", in_one_go(photos, tmp_path / "whole"))
    assert (report.added, report.updated, report.unchanged) == (COUNT - 1, 0, 0)
    assert list(report.failed) == [photos[4]]
    assert not list((tmp_path / "parts" / parts.PARTS).iterdir())


def test_only_what_is_new_or_changed_is_looked_at_again(photos, tmp_path):
    in_parts(photos, tmp_path / "g")
    photo(photos[2], seed=99)
    os.utime(photos[2], ns=(1, 1))  # an older file than the one before
    os.utime(photos[7])
    retriever = FakeRetriever()
    report = in_parts(photos, tmp_path / "g", retriever)
    assert (report.added, report.updated, report.unchanged, len(report.failed)) == (0, 1, COUNT - 2, 1)
    assert retriever.seen == 2
    with Gallery(tmp_path / "g") as gallery:
        assert gallery.stamp(2).mtime_ns == 1
        assert gallery.stamp(6).mtime_ns == photos[7].stat().st_mtime_ns  # one before it was no image


class Stopped(FakeRetriever):
    def extract(self, image: np.ndarray) -> Features:
        if self.seen == 2:
            raise KeyboardInterrupt
        return super().extract(image)


def test_a_part_left_behind_is_gone_on_with(photos, tmp_path):
    (part, *_) = cut(photos, tmp_path / "g", INFO, images=4)
    with pytest.raises(KeyboardInterrupt):
        make(part, INFO, Stopped())
    assert not part.is_made
    retriever = FakeRetriever()
    make(part, INFO, retriever)
    assert part.is_made
    assert retriever.seen == 2


def test_a_part_taken_in_by_half_is_taken_in_whole(photos, tmp_path, monkeypatch):
    (part, *_) = cut(photos, tmp_path / "g", INFO, images=4)
    make(part, INFO, FakeRetriever())
    report = IndexReport()
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        stored = writer.store

        def store(*row: object) -> None:
            if len(writer) == 2:
                raise KeyboardInterrupt
            stored(*row)

        monkeypatch.setattr(writer, "store", store)
        with pytest.raises(KeyboardInterrupt):
            take_in(part, writer, report)
        monkeypatch.undo()
        take_in(part, writer, report)
    assert (report.added, report.unchanged) == (4, 2)
    assert_same(tmp_path / "g", in_one_go(photos[:4], tmp_path / "whole"))


def test_a_damaged_part_is_named_and_kept(photos, tmp_path):
    (part, *_) = cut(photos, tmp_path / "g", INFO, images=4)
    make(part, INFO, FakeRetriever())
    with sqlite3.connect(part.folder / "shard-00000.sqlite") as shard:
        shard.execute("UPDATE maps SET data = zeroblob(length(data)) WHERE image = 1 AND scale = 0")
    shard.close()
    with (
        GalleryWriter(tmp_path / "g", INFO) as writer,
        pytest.raises(GalleryError, match=r"01.jpg is damaged .*remove this folder"),
    ):
        take_in(part, writer, IndexReport())
    assert part.is_made


def test_parts_of_another_making_or_list_have_other_folders(photos, tmp_path):
    folders = {
        part.folder
        for change in ({}, {"max_side_px": 512}, {"maps": "int8"}, {"features_id": "x"}, {"scales": (1.0,)})
        for length in (4, 3)
        for part in cut(photos[:length], tmp_path, replace(INFO, **change), images=4)
    }
    assert len(folders) == 10
    assert cut(photos, tmp_path, INFO) == cut(photos, tmp_path, INFO)
