"""A converted gallery has the images, stamps and descriptors of the other, and its maps near to them."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.gallery.copying import CopyReport, convert
from cvnet_engine.engine.gallery.info import read_info
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.galleries import INFO, STAMP, features

COUNT = 5


@pytest.fixture
def source(tmp_path: Path) -> Path:
    with GalleryWriter(tmp_path / "source", INFO, images_per_shard=2) as writer:
        for number in range(COUNT):
            writer.put(Path(f"/{number}.jpg"), STAMP, features(number))
    return tmp_path / "source"


def converted(source: Path, target: Path, maps: str) -> CopyReport:
    info, report = read_info(source), CopyReport()
    with GalleryWriter(target, replace(info, maps=maps, code="", shards=0)) as writer:
        convert(source, info, writer, report)
    return report


@pytest.mark.parametrize(("maps", "least"), [("float16", 1.0), ("coded:64", 0.7)])
def test_everything_but_maps_is_the_same(source, tmp_path, maps, least):
    report = converted(source, tmp_path / "g", maps)
    assert (report.added, report.updated, report.unchanged, report.damaged) == (COUNT, 0, 0, {})
    with Gallery(source) as before, Gallery(tmp_path / "g") as after:
        assert list(after.paths) == list(before.paths)
        assert np.array_equal(after.descriptors[:], before.descriptors[:])
        for row in range(COUNT):
            assert after.stamp(row) == before.stamp(row)
            for one, other in zip(before.features(row).maps, after.features(row).maps, strict=True):
                products = (one.astype(np.float32) * other).sum(axis=0)
                norms = np.linalg.norm(one.astype(np.float32), axis=0) * np.linalg.norm(
                    other.astype(np.float32), axis=0
                )
                assert (products / norms).min() > least - 1e-3


def test_what_is_there_is_not_converted_again(source, tmp_path):
    converted(source, tmp_path / "g", "coded:16")
    with GalleryWriter(source, INFO, images_per_shard=2) as writer:
        writer.put(Path("/2.jpg"), replace(STAMP, digest="cd" * 32), features(7))
        writer.put(Path("/new.jpg"), STAMP, features(8))
    report = converted(source, tmp_path / "g", "coded:16")
    assert (report.added, report.updated, report.unchanged) == (1, 1, COUNT - 1)


def test_without_a_whole_image_there_is_nothing_to_learn_a_code_from(source, tmp_path):
    for shard in source.glob("*.sqlite"):
        with sqlite3.connect(shard) as rows:
            rows.execute("UPDATE maps SET data = x'00'")
        rows.close()
    assert list(converted(source, tmp_path / "g", "coded:24").damaged) == [
        Path(f"/{number}.jpg") for number in range(COUNT)
    ]
    GalleryWriter(tmp_path / "empty", INFO).close()
    assert converted(tmp_path / "empty", tmp_path / "g", "coded:24") == CopyReport()
