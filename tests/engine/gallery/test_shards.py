"""Connections to shards are bounded in number; shards store the date and place of photos."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.exif import Shot
from cvnet_engine.engine.gallery import shards
from cvnet_engine.engine.gallery.indexing import IndexReport
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import Connections, checksum, create_shard, shard_file
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.galleries import INFO, STAMP, FakeEngines, execute, features, index_photos
from tests.pictures import dated, photo


@pytest.fixture
def pool(tmp_path):
    with Connections() as made:
        for number in range(3):
            create_shard(shard_file(tmp_path, number)).close()
            made.files.append(shard_file(tmp_path, number))
        yield made


def is_open(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return False
    return True


def test_the_least_recently_used_connection_is_closed(pool, monkeypatch):
    monkeypatch.setattr(shards, "MOST_CONNECTIONS", 2)
    found = []
    for number in (0, 1, 0, 2):
        with pool.use(number) as shard:
            found.append(shard)
    assert found[0] is found[2]
    assert [is_open(shard) for shard in found] == [True, False, True, True]


def test_each_user_of_a_shard_has_its_own_connection(pool):
    with pool.use(0) as one, pool.use(0) as other:
        assert one is not other
    assert is_open(one) != is_open(other)


def test_closing_waits_for_connections_in_use(pool):
    with pool.use(1) as kept, pool.use(0) as used:
        pass
    with pool.use(0) as used:
        pool.close()
        assert is_open(used)
    assert not is_open(used)
    assert not is_open(kept)
    with pytest.raises(GalleryError, match="closed"), pool.use(0):
        pass


DAY = 86_400


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three photos: one with date and place, one with a date, one with neither."""
    folder = tmp_path / "album"
    folder.mkdir()
    photo(folder / "0.jpg", exif=dated("2019:06:15 12:30:45", (48.5, -2.25)))
    photo(folder / "1.jpg", seed=1, exif=dated("1999:12:31 23:59:59"))
    photo(folder / "2.jpg", seed=2)
    return folder


def run(folder: Path, gallery: Path) -> tuple[IndexReport, int]:
    """The report, and how many images were extracted."""
    engines = FakeEngines()
    return index_photos(folder, gallery, 2, engines=engines), engines.seen


def known(gallery: Path) -> tuple[list[str], list[list[float]]]:
    with Gallery(gallery) as opened:
        assert (opened.taken.dtype, opened.places.dtype) == ("datetime64[s]", "float64")
        return [str(date) for date in opened.taken], opened.places.tolist()


EXPECTED = (["2019-06-15T12:30:45", "1999-12-31T23:59:59", "NaT"], [[48.5, -2.25], [np.nan] * 2, [np.nan] * 2])


def test_index_stores_date_and_place(album, tmp_path):
    run(album, tmp_path / "g")
    np.testing.assert_equal(known(tmp_path / "g"), EXPECTED)


def test_dates_are_read_from_all_shards(tmp_path):
    (tmp_path / "album").mkdir()
    for number in range(5):
        photo(tmp_path / "album" / f"{number}.jpg", seed=number, exif=dated(f"200{number}:01:01 00:00:00"))
    run(tmp_path / "album", tmp_path / "g")
    assert [date[:4] for date in known(tmp_path / "g")[0]] == ["2000", "2001", "2002", "2003", "2004"]


def test_a_second_run_reads_no_file(album, tmp_path, monkeypatch):
    run(album, tmp_path / "g")
    monkeypatch.setattr(
        "cvnet_engine.engine.gallery.indexing.read_bytes", None
    )  # neither those with a date nor those without
    assert run(album, tmp_path / "g")[0].unchanged == 3


def test_a_changed_file_has_its_new_date(album, tmp_path):
    run(album, tmp_path / "g")
    photo(album / "0.jpg", seed=9, exif=dated("2020:02:29 00:00:00"))
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
def test_a_damaged_date_is_unknown_until_indexed_again(album, tmp_path, statement):
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


def test_dates_of_later_images_are_left_out(tmp_path):
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        writer.put(Path("/photos/0.jpg"), STAMP, features(0), Shot(DAY))
        gallery = Gallery(tmp_path / "g")
        writer.put(Path("/photos/1.jpg"), STAMP, features(1), Shot(2 * DAY))
    assert gallery.taken.tolist() == np.array(["1970-01-02"], "datetime64[s]").tolist()


def test_an_image_stored_without_exif_has_none(tmp_path):
    path = Path("/photos/0.jpg")
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        writer.put(path, STAMP, features(0), Shot(DAY))
        assert writer.has_exif(path)
        writer.put(path, STAMP, features(0))
        assert not writer.has_exif(path)
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        assert not writer.has_exif(path)
    assert np.isnat(Gallery(tmp_path / "g").taken).all()
