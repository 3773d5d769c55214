"""Galleries store the date and place of photos."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvnet_engine.engine.exif import Shot
from cvnet_engine.engine.gallery.indexing import IndexReport, find_images, index
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import checksum
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.galleries import INFO, STAMP, FakeEngines, features
from tests.pictures import dated, encode, photo, picture

DAY = 86_400


def add(path: Path, exif: bytes, seed: int = 0) -> Path:
    path.write_bytes(encode(Image.fromarray(picture(seed=seed)), "JPEG", exif=exif))
    return path


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three photos: one with date and place, one with a date, one with neither."""
    folder = tmp_path / "album"
    folder.mkdir()
    add(folder / "0.jpg", dated("2019:06:15 12:30:45", (48.5, -2.25)))
    add(folder / "1.jpg", dated("1999:12:31 23:59:59"), seed=1)
    photo(folder / "2.jpg", seed=2)
    return folder


def run(folder: Path, gallery: Path) -> tuple[IndexReport, int]:
    """The report, and how many images were extracted."""
    report, engines = IndexReport(), FakeEngines()
    with GalleryWriter(gallery, INFO, images_per_shard=2) as writer:
        index(find_images([folder]), engines, writer, None, report)
    return report, engines.seen


def known(gallery: Path) -> tuple[list[str], list[list[float]]]:
    with Gallery(gallery) as opened:
        assert (opened.taken.dtype, opened.places.dtype) == ("datetime64[s]", "float64")
        return [str(date) for date in opened.taken], opened.places.tolist()


EXPECTED = (["2019-06-15T12:30:45", "1999-12-31T23:59:59", "NaT"], [[48.5, -2.25], [np.nan] * 2, [np.nan] * 2])


def execute(gallery: Path, statement: str, shard: int = 0) -> None:
    with sqlite3.connect(gallery / f"shard-{shard:05d}.sqlite") as connection:
        connection.execute(statement)
    connection.close()


def test_index_keeps_when_and_where(album, tmp_path):
    run(album, tmp_path / "g")
    np.testing.assert_equal(known(tmp_path / "g"), EXPECTED)


def test_each_image_has_its_own_date_whatever_shard_it_is_in(tmp_path):
    (tmp_path / "album").mkdir()
    for number in range(5):
        add(tmp_path / "album" / f"{number}.jpg", dated(f"200{number}:01:01 00:00:00"), seed=number)
    run(tmp_path / "album", tmp_path / "g")
    assert [date[:4] for date in known(tmp_path / "g")[0]] == ["2000", "2001", "2002", "2003", "2004"]


def test_a_second_run_reads_no_file_for_its_date(album, tmp_path, monkeypatch):
    run(album, tmp_path / "g")
    monkeypatch.setattr(
        "cvnet_engine.engine.gallery.indexing.read_bytes", None
    )  # neither those with a date nor those without
    assert run(album, tmp_path / "g")[0].unchanged == 3


def test_a_changed_file_has_its_new_date(album, tmp_path):
    run(album, tmp_path / "g")
    add(album / "0.jpg", dated("2020:02:29 00:00:00"), seed=9)
    photo(album / "1.jpg", seed=1)  # the date is gone
    run(album, tmp_path / "g")
    assert known(tmp_path / "g")[0] == ["2020-02-29T00:00:00", "NaT", "NaT"]
    os.utime(album / "0.jpg", ns=(1, 2_000_000_000))
    run(album, tmp_path / "g")
    assert known(tmp_path / "g")[0][0] == "2020-02-29T00:00:00"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE taken SET taken = taken + 1 WHERE image = 0",
        "UPDATE taken SET taken = 'yesterday' WHERE image = 0",
        "UPDATE taken SET latitude = 9e999 WHERE image = 0",
        "UPDATE taken SET longitude = NULL WHERE image = 0",
        "UPDATE taken SET checksum = 0 WHERE image = 0",
        "DELETE FROM taken WHERE image = 0",
    ],
)
def test_a_damaged_date_is_unknown_and_taken_in_anew(album, tmp_path, statement):
    run(album, tmp_path / "g")
    execute(tmp_path / "g", statement)
    assert known(tmp_path / "g")[0] == ["NaT", *EXPECTED[0][1:]]
    assert run(album, tmp_path / "g")[1] == 0
    np.testing.assert_equal(known(tmp_path / "g"), EXPECTED)


def test_a_forged_row_of_another_type_is_unknown(album, tmp_path):
    run(album, tmp_path / "g")
    row = (0, "yesterday", "north", None)
    execute(
        tmp_path / "g",
        f"UPDATE taken SET taken = 'yesterday', latitude = 'north', longitude = NULL, "
        f"checksum = {checksum(*row)} WHERE image = 0",
    )
    assert known(tmp_path / "g")[0][0] == "NaT"


def test_rows_beyond_the_snapshot_are_left_out(tmp_path):
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        writer.put(Path("/photos/0.jpg"), STAMP, features(0), Shot(DAY))
        gallery = Gallery(tmp_path / "g")
        writer.put(Path("/photos/1.jpg"), STAMP, features(1), Shot(2 * DAY))
    assert gallery.taken.tolist() == np.array(["1970-01-02"], "datetime64[s]").tolist()


def test_an_image_put_in_without_its_exif_is_looked_at_by_the_next_index(tmp_path):
    path = Path("/photos/0.jpg")
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        writer.put(path, STAMP, features(0), Shot(DAY))
        assert writer.has_exif(path)
        writer.put(path, STAMP, features(0))
        assert not writer.has_exif(path)
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        assert not writer.has_exif(path)
    assert np.isnat(Gallery(tmp_path / "g").taken).all()
