"""Merged galleries equal indexed ones; a converted gallery differs from its source in its maps alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.copying import CopyReport, convert, merge, require_equal_settings
from cvnet_engine.engine.gallery.info import read_info
from cvnet_engine.engine.gallery.inspection import verify
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.walk import Intact, walk
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.galleries import INFO, STAMP, assert_equal, execute, features, path, read, rows, write

PER_SHARD = 4


def merged(target: Path, *sources: Path) -> CopyReport:
    report = CopyReport()
    with GalleryWriter(target, INFO, PER_SHARD) as writer:
        for source in sources:
            merge(source, read_info(source), writer, report)
    return report


def test_a_merged_gallery_is_the_one_that_index_makes(tmp_path):
    for name, part in (("a", range(5)), ("b", range(5, 9)), ("whole", range(9))):
        write(tmp_path / name, part, PER_SHARD)
    report = merged(tmp_path / "m", tmp_path / "a", tmp_path / "b")
    assert report == CopyReport(added=9)
    assert rows(tmp_path / "m") == rows(tmp_path / "whole")
    assert (tmp_path / "m/gallery.json").read_text() == (tmp_path / "whole/gallery.json").read_text()


def test_for_equal_paths_the_newer_file_wins(tmp_path):
    older, newer = (replace(STAMP, mtime_ns=STAMP.mtime_ns + offset) for offset in (-1, 1))
    write(tmp_path / "target", [0, 1, 2])
    for name, stamp in (("older", older), ("newer", newer)):
        with GalleryWriter(tmp_path / name, INFO) as writer:
            writer.put(path(1), stamp, features(100))
    assert merged(tmp_path / "target", tmp_path / "older").unchanged == 1
    assert read(tmp_path / "target") == [0, 1, 2]
    assert merged(tmp_path / "target", tmp_path / "newer").updated == 1
    with Gallery(tmp_path / "target") as opened:
        assert opened.paths == [path(0), path(1), path(2)]
        assert_equal(opened.features(1), features(100))
        assert opened.stamp(1) == newer


def test_readers_go_on_beside_a_merge(tmp_path):
    write(tmp_path / "target", range(3))
    write(tmp_path / "source", range(3, 9))
    with Gallery(tmp_path / "target") as reader, Gallery(tmp_path / "source") as other:
        merged(tmp_path / "target", tmp_path / "source")
        for row in range(3):
            assert_equal(reader.features(row), features(row))
        assert (len(reader), len(other)) == (3, 6)
    assert read(tmp_path / "target") == list(range(9))


def test_a_merge_repairs_a_damaged_image_of_the_target(tmp_path):
    write(tmp_path / "target", range(3))
    write(tmp_path / "source", range(3))
    execute(tmp_path / "target", "DELETE FROM maps WHERE image = 1 AND scale = 0")
    assert list(verify(tmp_path / "target").damaged) == [path(1)]
    report = merged(tmp_path / "target", tmp_path / "source")
    assert (report.updated, report.unchanged) == (1, 2)
    assert read(tmp_path / "target") == [0, 1, 2]


@pytest.mark.parametrize(
    "change", [{"features_id": "x"}, {"max_side_px": None}, {"maps": "coded:8"}, {"scales": (1.0,)}]
)
def test_galleries_with_other_settings_are_not_merged(change):
    with pytest.raises(GalleryError, match=r"b: made with another .* only galleries with equal settings can be merged"):
        require_equal_settings({Path("a"): INFO, Path("b"): replace(INFO, **change)})
    require_equal_settings({Path("a"): INFO, Path("b"): replace(INFO, shards=7)})


def test_an_image_removed_during_a_walk_is_not_damage(tmp_path):
    images = walk(write(tmp_path / "g", range(3)), INFO)
    first = next(images)
    with GalleryWriter.reopen(tmp_path / "g") as writer:
        writer.remove([path(1)])
    assert isinstance(first, Intact)
    assert [image.image.path for image in images if isinstance(image, Intact)] == [path(2)]


# --------------------------------------------------------------------------------------------- conversion

COUNT = 5


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "source", range(COUNT), 2)


def converted(source: Path, target: Path, maps: str) -> CopyReport:
    info, report = read_info(source), CopyReport()
    with GalleryWriter(target, replace(info, maps=maps, code="", shards=0)) as writer:
        convert(source, info, writer, report)
    return report


@pytest.mark.parametrize(("maps", "least"), [("float16", 1.0), ("coded:64", 0.7)])
def test_conversion_changes_nothing_but_maps(source, tmp_path, maps, least):
    assert converted(source, tmp_path / "g", maps) == CopyReport(added=COUNT)
    with Gallery(source) as before, Gallery(tmp_path / "g") as after:
        assert list(after.paths) == list(before.paths)
        assert np.array_equal(after.descriptors[:], before.descriptors[:])
        for row in range(COUNT):
            assert after.stamp(row) == before.stamp(row)
            for pair in zip(before.features(row).maps, after.features(row).maps, strict=True):
                one, other = (m.astype(np.float32) / np.linalg.norm(m.astype(np.float32), axis=0) for m in pair)
                assert (one * other).sum(axis=0).min() > least - 1e-3


def test_current_images_are_not_converted_again(source, tmp_path):
    converted(source, tmp_path / "g", "coded:16")
    with GalleryWriter(source, INFO, images_per_shard=2) as writer:
        writer.put(path(2), replace(STAMP, digest="cd" * 32), features(7))
        writer.put(path(8), STAMP, features(8))
    report = converted(source, tmp_path / "g", "coded:16")
    assert (report.added, report.updated, report.unchanged) == (1, 1, COUNT - 1)


def test_without_an_intact_image_no_compression_is_fitted(source, tmp_path):
    for shard in source.glob("*.sqlite"):
        with closing(sqlite3.connect(shard)) as connection, connection:
            connection.execute("UPDATE maps SET data = x'00'")
    assert list(converted(source, tmp_path / "g", "coded:24").damaged) == [path(seed) for seed in range(COUNT)]
    assert converted(write(tmp_path / "empty", []), tmp_path / "g", "coded:24") == CopyReport()
