"""Missing and damaged parts of a gallery are noticed, and the next `index` restores them."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.columns import columns_file
from cvnet_engine.engine.gallery.indexing import IndexReport, find_images, index
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import checksum
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.galleries import INFO, STAMP, FakeEngines, assert_equal, features

PER_SHARD = 2


def run(photos: Path, gallery: Path) -> tuple[list[str], IndexReport]:
    """Index, two images a shard; what the writer found, and the report."""
    report = IndexReport()
    with GalleryWriter(gallery, INFO, images_per_shard=PER_SHARD) as writer:
        repairs = list(writer.repairs)
        index(find_images([photos]), FakeEngines(), writer, None, report)
    return repairs, report


def contents(gallery: Path) -> dict[str, Features]:
    """Every image by name; the gallery must be whole."""
    with Gallery(gallery) as opened:
        return {path.name: opened.features(row) for row, path in enumerate(opened.paths)}


def execute(gallery: Path, *statements: str, shard: int = 0) -> None:
    with sqlite3.connect(gallery / f"shard-{shard:05d}.sqlite") as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount
    connection.close()


def shard(gallery: Path, number: int) -> Path:
    return gallery / f"shard-{number:05d}.sqlite"


def flip(gallery: Path, table: str, column: str) -> None:
    """One bit of the first row's column."""
    with sqlite3.connect(shard(gallery, 0)) as connection:
        (data,) = connection.execute(f"SELECT {column} FROM {table} LIMIT 1").fetchone()
        key = "id" if table == "images" else "image"
        connection.execute(
            f"UPDATE {table} SET {column} = ? WHERE {key} = 0 AND {column} = ?", (bytes([data[0] ^ 1]) + data[1:], data)
        )
    connection.close()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a map": lambda g: execute(g, "DELETE FROM maps WHERE image = 1 AND scale = 2"),
    "all maps of an image": lambda g: execute(g, "DELETE FROM maps WHERE image = 0"),
    "all maps": lambda g: execute(g, "DELETE FROM maps"),
    "a row": lambda g: execute(g, "DELETE FROM images WHERE id = 1"),
    "a row and its maps": lambda g: execute(g, "DELETE FROM maps WHERE image = 1", "DELETE FROM images WHERE id = 1"),
    "all rows": lambda g: execute(g, "DELETE FROM images"),
    "the first shard": lambda g: shard(g, 0).unlink(),
    "a shard amid others": lambda g: shard(g, 1).unlink(),
    "the last shard": lambda g: shard(g, 2).unlink(),
    "every shard": lambda g: [shard(g, n).unlink() for n in range(3)],
    "a descriptor's bit": lambda g: flip(g, "images", "descriptor"),
    "a path's bit": lambda g: flip(g, "images", "path"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_missing_is_noticed_with_the_command_that_repairs_it_and_the_command_repairs(photos, tmp_path, damage):
    run(photos, tmp_path / "g")
    whole = contents(tmp_path / "g")
    DAMAGES[damage](tmp_path / "g")
    with pytest.raises(GalleryError, match="run 'cvnet-engine index' with the gallery's images again") as caught:
        contents(tmp_path / "g")
    assert "\n" not in str(caught.value)

    repairs, report = run(photos, tmp_path / "g")
    assert repairs
    assert 0 < report.added + report.updated < 5 or damage == "every shard"
    repaired = contents(tmp_path / "g")
    assert repaired.keys() == whole.keys()
    for name, described in whole.items():
        assert_equal(repaired[name], described)
    repairs, report = run(photos, tmp_path / "g")
    assert (repairs, report.unchanged) == ([], 5)


def test_a_damaged_map_that_a_reader_met_is_taken_in_anew(photos, tmp_path):
    run(photos, tmp_path / "g")
    whole = contents(tmp_path / "g")
    flip(tmp_path / "g", "maps", "data")
    with pytest.raises(GalleryError, match=r"0\.jpg: features damaged in the gallery \(checksum differs\); run"):
        contents(tmp_path / "g")
    repairs, report = run(photos, tmp_path / "g")
    assert repairs == ["maps of 1 images were damaged"]
    assert (report.updated, report.unchanged) == (1, 4)
    assert_equal(contents(tmp_path / "g")["0.jpg"], whole["0.jpg"])
    assert run(photos, tmp_path / "g")[0] == []


def test_a_damaged_image_that_is_not_given_stays_noticed(photos, tmp_path):
    run(photos, tmp_path / "g")
    flip(tmp_path / "g", "maps", "data")
    with pytest.raises(GalleryError, match="features damaged"):
        contents(tmp_path / "g")
    for _ in range(2):
        assert run(photos / "3.jpg", tmp_path / "g")[0] == ["maps of 1 images were damaged"]
    assert run(photos / "0.jpg", tmp_path / "g")[1].updated == 1
    assert len(contents(tmp_path / "g")) == 5


def test_a_gallery_without_its_json_is_not_mixed_with_another(photos, tmp_path):
    run(photos, tmp_path / "g")
    (tmp_path / "g" / "gallery.json").unlink()
    with pytest.raises(GalleryError, match=r"gallery\.json is missing; restore it"):
        GalleryWriter(tmp_path / "g", INFO)


def test_a_shard_that_is_no_database_is_to_be_moved_away(photos, tmp_path):
    run(photos, tmp_path / "g")
    shard(tmp_path / "g", 1).write_bytes(b"no database" * 1000)
    for opening in (Gallery, lambda path: GalleryWriter(path, INFO)):
        with pytest.raises(GalleryError, match=r"shard-00001\.sqlite: .* move the damaged shard away, then run"):
            opening(tmp_path / "g")
    shard(tmp_path / "g", 1).unlink()
    run(photos, tmp_path / "g")
    assert len(contents(tmp_path / "g")) == 5


def test_what_a_killed_writer_left_of_a_shard_that_was_moved_away_is_not_put_into_the_new_one(tmp_path):
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        for n in range(3):
            writer.put(Path(f"/photos/{n}.jpg"), STAMP, features(n))
        killed = shutil.copytree(tmp_path / "g", tmp_path / "killed")
    shard(killed, 0).rename(tmp_path / "away.sqlite")
    with GalleryWriter(killed, INFO) as writer:
        assert writer.repairs == ["shard-00000.sqlite was missing"]
        writer.put(Path("/photos/2.jpg"), STAMP, features(9))
    (found,) = contents(killed).values()
    assert_equal(found, features(9))


def test_maps_of_rows_that_are_lost_take_no_space(photos, tmp_path):
    run(photos, tmp_path / "g")
    execute(tmp_path / "g", "DELETE FROM images WHERE id = 0")
    columns_file(shard(tmp_path / "g", 0)).unlink()
    run(photos, tmp_path / "g")
    with sqlite3.connect(shard(tmp_path / "g", 0)) as connection:
        assert connection.execute("SELECT DISTINCT image FROM maps").fetchall() == [(1,)]
    connection.close()


# ----------------------------------------------------------------------------- galleries of others


SIGNED = {"images": "id, path, height, width, descriptor", "maps": "image, scale, channels, height, width, data"}


def forge(gallery: Path, table: str, **columns: object) -> None:
    """The first row with other columns, and a checksum that fits."""
    with sqlite3.connect(shard(gallery, 0)) as connection:
        where = "id = 0" if table == "images" else "image = 0 AND scale = 0"
        for name, value in columns.items():
            connection.execute(f"UPDATE {table} SET {name} = ? WHERE {where}", (value,))
        (row,) = connection.execute(f"SELECT {SIGNED[table]} FROM {table} WHERE {where}")
        connection.execute(f"UPDATE {table} SET checksum = ? WHERE {where}", (checksum(*row),))
    connection.close()


def descriptor(value: float) -> bytes:
    return np.full(2048, value, np.float32).tobytes()


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("images", {"descriptor": descriptor(np.nan)}),
        ("images", {"descriptor": descriptor(np.inf)}),
        ("images", {"descriptor": descriptor(1e30)}),
        ("images", {"descriptor": descriptor(0)}),
        ("images", {"descriptor": b""}),
        ("images", {"descriptor": descriptor(2048**-0.5)[4:]}),
        ("images", {"descriptor": descriptor(2048**-0.5)[1:]}),
        ("images", {"descriptor": "text"}),
        ("images", {"path": b"/photos/\0"}),
        ("images", {"path": 7}),
        ("images", {"height": -1}),
        ("images", {"height": "tall"}),
        ("images", {"width": 2**60}),
        ("images", {"height": 4, "width": 6}),
        ("maps", {"data": np.full((256, 8, 10), np.nan, np.float16).tobytes()}),
        ("maps", {"data": np.full((256, 8, 10), -np.inf, np.float16).tobytes()}),
        ("maps", {"data": bytes(2 * 256 * 8 * 10 - 2)}),
        ("maps", {"data": bytes(2 * 256 * 8 * 10 + 2)}),
        ("maps", {"data": "text"}),
        ("maps", {"channels": 128, "height": 16}),
        ("maps", {"channels": -256, "height": -8}),
        ("maps", {"height": 10, "width": 8}),
        ("maps", {"height": "tall"}),
    ],
)
def test_a_forged_row_is_refused_and_then_taken_in_anew(photos, tmp_path, recwarn, table, columns):
    run(photos, tmp_path / "g")
    forge(tmp_path / "g", table, **columns)
    with pytest.raises(GalleryError, match="features damaged in the gallery"):
        contents(tmp_path / "g")
    run(photos, tmp_path / "g")
    assert len(contents(tmp_path / "g")) == 5
    assert not recwarn


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW endless AS SELECT 1",
        "CREATE TRIGGER more AFTER INSERT ON images BEGIN DELETE FROM images; END",
    ],
)
def test_a_shard_that_does_more_than_keep_tables_is_refused(photos, tmp_path, statement):
    run(photos, tmp_path / "g")
    execute(tmp_path / "g", statement)
    for opening in (Gallery, lambda path: GalleryWriter(path, INFO)):
        with pytest.raises(GalleryError, match="expected plain tables"):
            opening(tmp_path / "g")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_not_stored(tmp_path, value):
    made = features(0)
    made.maps[1][0, 0, 0] = value
    with GalleryWriter(tmp_path / "g", INFO) as writer, pytest.raises(GalleryError, match="features are not finite"):
        writer.put(Path("/photos/0.jpg"), STAMP, made)
    assert len(Gallery(tmp_path / "g")) == 0


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_note_is_not_written_through_a_link_nor_into_a_pipe(photos, tmp_path, kind):
    run(photos, tmp_path / "g")
    if kind == "link":
        (tmp_path / "g" / "damaged").symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(tmp_path / "g" / "damaged")
    flip(tmp_path / "g", "maps", "data")
    with pytest.raises(GalleryError, match="features damaged"):
        contents(tmp_path / "g")
    assert not (tmp_path / "elsewhere").exists()
