"""A gallery that was made in parts equals one that was made in one go, whatever was stopped on the way."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery import ray_indexing as parts
from cvnet_engine.engine.gallery.indexing import IndexReport, find_images, index
from cvnet_engine.engine.gallery.map_codecs import parse_kind
from cvnet_engine.engine.gallery.ray_indexing import cut, discard, make, outdated, take_in
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.galleries import INFO, FakeEngines, assert_equal, features
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
        index(photos, FakeEngines(), writer, None, IndexReport())
    return folder


def in_parts(photos: list[Path], folder: Path, engines: FakeEngines | None = None) -> IndexReport:
    report = IndexReport()
    with GalleryWriter(folder, INFO) as writer:
        wanted = outdated(photos, writer, report, lambda _: None)
        found = [part for part in cut(photos, set(wanted), folder, INFO, images=4) if part.paths]
        for part in reversed(found):  # workers finish as they like
            make(part, INFO, engines or FakeEngines())
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
    engines = FakeEngines()
    report = in_parts(photos, tmp_path / "g", engines)
    assert (report.added, report.updated, report.unchanged, len(report.failed)) == (0, 1, COUNT - 2, 1)
    assert engines.seen == 2
    with Gallery(tmp_path / "g") as gallery:
        assert gallery.stamp(2).mtime_ns == 1
        assert gallery.stamp(6).mtime_ns == photos[7].stat().st_mtime_ns  # one before it was no image


def test_dates_are_taken_in_of_images_that_are_there_without(photos, tmp_path):
    in_one_go(photos, tmp_path / "g")
    with sqlite3.connect(tmp_path / "g" / "shard-00000.sqlite") as shard:
        shard.execute("DELETE FROM taken")
    shard.close()
    for seen in (COUNT - 1, 0):
        engines = FakeEngines()
        report = in_parts(photos, tmp_path / "g", engines)
        assert (report.added, report.updated, report.unchanged) == (0, 0, COUNT - 1)
        assert engines.seen == seen
    assert_same(tmp_path / "g", in_one_go(photos, tmp_path / "whole"))


def test_a_part_left_behind_is_gone_on_with(photos, tmp_path, monkeypatch):
    (part, *_) = cut(photos, photos, tmp_path / "g", INFO, images=4)
    put = GalleryWriter.put

    def stopping(writer: GalleryWriter, *row: object) -> None:
        if len(writer) == 2:
            raise KeyboardInterrupt
        put(writer, *row)

    monkeypatch.setattr(GalleryWriter, "put", stopping)
    with pytest.raises(KeyboardInterrupt):
        make(part, INFO, FakeEngines())
    monkeypatch.undo()
    assert not part.is_finished
    engines = FakeEngines()
    make(part, INFO, engines)
    assert part.is_finished
    assert engines.seen == 2


def test_a_part_taken_in_by_half_is_taken_in_whole(photos, tmp_path, monkeypatch):
    (part, *_) = cut(photos, photos, tmp_path / "g", INFO, images=4)
    make(part, INFO, FakeEngines())
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
    (part, *_) = cut(photos, photos, tmp_path / "g", INFO, images=4)
    make(part, INFO, FakeEngines())
    with sqlite3.connect(part.folder / "shard-00000.sqlite") as shard:
        shard.execute("UPDATE maps SET data = zeroblob(length(data)) WHERE image = 1 AND scale = 0")
    shard.close()
    with (
        GalleryWriter(tmp_path / "g", INFO) as writer,
        pytest.raises(GalleryError, match=r"01.jpg is damaged .*remove this folder"),
    ):
        take_in(part, writer, IndexReport())
    assert part.is_finished


def test_parts_of_another_making_or_list_have_other_folders(photos, tmp_path):
    folders = {
        part.folder
        for change in ({}, {"max_side_px": 512}, {"maps": "coded:24"}, {"features_id": "x"}, {"scales": (1.0,)})
        for length in (4, 3)
        for part in cut(photos[:length], photos, tmp_path, replace(INFO, **change), images=4)
    }
    assert len(folders) == 10
    assert cut(photos, photos, tmp_path, INFO) == cut(photos, photos, tmp_path, INFO)


def test_a_part_is_found_again_when_the_gallery_has_some_of_it(photos, tmp_path):
    """As after a kill while it was taken in; one that lacks what the gallery has lost since is made anew."""
    (first, *_) = cut(photos, photos, tmp_path / "g", INFO, images=4)
    make(first, INFO, FakeEngines())
    (rest, *_) = cut(photos, set(photos[2:]), tmp_path / "g", INFO, images=4)
    assert rest.is_finished
    report = IndexReport()
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        take_in(rest, writer, report)
        assert writer.paths == photos[2:4]
    assert (report.added, report.unchanged) == (2, 0)
    make(rest, INFO, FakeEngines())
    assert rest.is_finished
    assert not first.is_finished


@pytest.mark.parametrize("gone", range(4))
@pytest.mark.parametrize("maps", ["float16", "coded"])
def test_a_folder_that_is_removed_by_half_is_a_part_that_can_be_made(photos, tmp_path, monkeypatch, maps, gone):
    info = replace(INFO, maps=parse_kind(maps))
    with GalleryWriter(tmp_path / "g", info) as writer:
        if writer.needs_fit:
            writer.fit([features(n) for n in range(3)])
        info = writer.info
    (part, *_) = cut(photos, photos, tmp_path / "g", info, images=4)
    make(part, info, FakeEngines())
    unlinked, unlink = [], Path.unlink

    def stopping(file: Path, missing_ok: bool = False) -> None:
        if len(unlinked) == gone:
            raise KeyboardInterrupt
        unlinked.append(file)
        unlink(file, missing_ok)

    def remove(folder: Path) -> None:
        for file in folder.iterdir():
            stopping(file)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", stopping)
        patched.setattr(parts.shutil, "rmtree", remove)
        with pytest.raises(KeyboardInterrupt):
            discard(part)
    assert part.is_finished == (gone == 0)
    make(part, info, FakeEngines())
    assert part.is_finished
    discard(part)
    discard(part)
    assert not part.folder.exists()
