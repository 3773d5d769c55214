"""Damage to a gallery: what the reader says, and how many images the next `index` stores again."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.columns import ENTRY, HEADER_BYTES, ROW_BYTES, columns_file
from cvnet_engine.engine.gallery.inspection import repair, verify
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import DAMAGED, checksum, shard_file
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.galleries import INFO, STAMP, execute, features, flip, flip_column, path, put, read, write

COUNT, PER_SHARD = 5, 2
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("damage") / "g", range(COUNT), PER_SHARD)


@pytest.fixture
def gallery(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "g")


def index_again(gallery: Path) -> tuple[list[str], list[int]]:
    """What the writer repaired, and the images that it then had to be given."""
    with GalleryWriter(gallery, INFO, PER_SHARD) as writer:
        lost = [seed for seed in range(COUNT) if writer.stamp(path(seed)) is None]
        put(writer, lost)
        return list(writer.repairs), lost


def shard(gallery: Path, number: int = 0) -> Path:
    return shard_file(gallery, number)


def columns(gallery: Path) -> Path:
    return columns_file(shard(gallery))


def sql(*statements: str) -> Damage:
    return lambda gallery: execute(gallery, *statements)


SIGNED = {"images": "id, path, height, width, descriptor", "maps": "image, scale, channels, height, width, data"}


def forge(table: str, **changes: object) -> Damage:
    """Change columns of the first row, with a checksum that fits."""

    def damage(gallery: Path) -> None:
        where = "id = 0" if table == "images" else "image = 0 AND scale = 0"
        with closing(sqlite3.connect(shard(gallery))) as connection, connection:
            for name, value in changes.items():
                connection.execute(f"UPDATE {table} SET {name} = ? WHERE {where}", (value,))
            (row,) = connection.execute(f"SELECT {SIGNED[table]} FROM {table} WHERE {where}")
            connection.execute(f"UPDATE {table} SET checksum = ? WHERE {where}", (checksum(*row),))

    return damage


def descriptor(value: float) -> bytes:
    return np.full(2048, value, np.float32).tobytes()


def half(value: float) -> bytes:
    return np.full((256, 2, 3), value, np.float16).tobytes()


def replace(make: Callable[[Path], object], file: Callable[[Path], Path] = shard) -> Damage:
    """Put something else in a file's place."""
    return lambda gallery: (file(gallery).unlink(), make(file(gallery)))


NOT_FILES = {
    "missing": lambda _: None,
    "empty": Path.touch,
    "other content": lambda file: file.write_bytes(b"no database" * 10_000),
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a device": lambda file: file.symlink_to("/dev/zero"),
}
ROWS = "features damaged in the gallery .*; run 'cvnet-engine index' with the gallery's images again"
SHARDS = "missing from the gallery; run 'cvnet-engine index' with the gallery's images again"
DESCRIPTORS_END = HEADER_BYTES + PER_SHARD * ROW_BYTES * 3 // 2
NAMES = PER_SHARD * ENTRY.itemsize + DESCRIPTORS_END

# name -> damage, what the reader says (None: all is read), images that are lost
REPAIRABLE: dict[str, tuple[Damage, str | None, list[int]]] = {
    "a map": (sql("DELETE FROM maps WHERE image = 1 AND scale = 2"), ROWS, [1]),
    "all maps of an image": (sql("DELETE FROM maps WHERE image = 0"), ROWS, [0]),
    "all maps of a shard": (sql("DELETE FROM maps"), ROWS, [0, 1]),
    "a row": (sql("DELETE FROM images WHERE id = 1"), ROWS, [1]),
    "a row and its maps": (sql("DELETE FROM maps WHERE image = 1", "DELETE FROM images WHERE id = 1"), ROWS, [1]),
    "all rows of a shard": (sql("DELETE FROM images"), ROWS, [0, 1]),
    "the first shard": (lambda g: shard(g).unlink(), SHARDS, [0, 1]),
    "a shard between others": (lambda g: shard(g, 1).unlink(), SHARDS, [2, 3]),
    "the last shard": (lambda g: shard(g, 2).unlink(), SHARDS, [4]),
    "every shard": (lambda g: [shard(g, n).unlink() for n in range(3)], SHARDS, [0, 1, 2, 3, 4]),
    "a descriptor's bit": (lambda g: flip_column(g, "images", "descriptor", 0, 77), ROWS, [0]),
    "a path's bit": (lambda g: flip_column(g, "images", "path"), ROWS, [0]),
    "a path of another type": (sql("UPDATE images SET path = '/photos/9.jpg' WHERE id = 1"), ROWS, [1]),
    "an image's size": (sql("UPDATE images SET height = 6, width = 4 WHERE id = 1"), ROWS, [1]),
    "a map's size": (sql("UPDATE maps SET height = 3, width = 2 WHERE image = 1 AND scale = 0"), ROWS, [1]),
    "a map's scale": (sql("UPDATE maps SET scale = 3 WHERE image = 1 AND scale = 0"), ROWS, [1]),
    "a map's type": (sql("UPDATE maps SET data = 'text' WHERE image = 1 AND scale = 0"), ROWS, [1]),
    **{
        f"bit {position} of map {scale}": (
            lambda g, s=scale, p=position: flip_column(g, "maps", "data", 1, p, s), ROWS, [1],
        )
        for scale in range(3) for position in (0, 1000, -1)
    },
    **{f"columns: {kind}": (replace(make, columns), None, []) for kind, make in NOT_FILES.items()},
    "columns: cut": (lambda g: os.truncate(columns(g), columns(g).stat().st_size - 1), None, []),
    "columns: longer": (lambda g: os.truncate(columns(g), columns(g).stat().st_size + 1), None, []),
    "columns: of another shard": (lambda g: shutil.copy(columns_file(shard(g, 1)), columns(g)), None, []),
    **{f"columns: header bit {n}": (lambda g, n=n: flip(columns(g), n), None, []) for n in range(0, 36, 5)},
    **{
        f"columns: bit {n}": (lambda g, n=n: flip(columns(g), n), None, [])
        for n in (DESCRIPTORS_END, NAMES - 1, NAMES, -1)
    },
}  # fmt: skip
FORGED: list[Damage] = [
    *(forge("images", descriptor=descriptor(value)) for value in (np.nan, np.inf, 1e30, 0)),
    *(forge("images", descriptor=data) for data in (b"", descriptor(2048**-0.5)[4:], descriptor(2048**-0.5)[1:], "x")),
    *(forge("images", path=name) for name in (b"/photos/\0", 7)),
    *(forge("images", height=height) for height in (-1, "tall")),
    forge("images", width=2**60),
    forge("images", height=6, width=4),
    *(forge("maps", data=data) for data in (half(np.nan), half(-np.inf), half(0)[2:], half(0) + b"xx", "text")),
    forge("maps", channels=128, height=4),
    forge("maps", channels=-256, height=-2),
    forge("maps", height=3, width=2),
    forge("maps", height="tall"),
]
REPAIRABLE |= {f"forged row {number}": (damage, ROWS, [0]) for number, damage in enumerate(FORGED)}


@pytest.mark.parametrize("name", REPAIRABLE)
def test_damage_is_named_and_index_repairs_it(gallery, recwarn, name):
    damage, message, lost = REPAIRABLE[name]
    damage(gallery)
    if message:
        with pytest.raises(GalleryError, match=message) as caught:
            read(gallery)
        assert "\n" not in str(caught.value)
    else:
        assert read(gallery) == list(range(COUNT))
    repairs, again = index_again(gallery)
    assert (bool(repairs), again) == (bool(lost), lost)
    assert sorted(read(gallery)) == list(range(COUNT))
    assert index_again(gallery) == ([], [])
    assert not recwarn


UNUSABLE: dict[str, tuple[Damage, str]] = {
    "empty": (replace(Path.touch), "no such table: .*move the damaged shard away, then run"),
    "other content": (replace(NOT_FILES["other content"]), "not a database.*move the damaged shard away, then run"),
    "no tables": (sql("DROP TABLE maps"), "no such table: .*maps.*move the damaged shard away, then run"),
    "a view": (sql("CREATE VIEW endless AS SELECT 1"), "unexpected view endless; expected plain tables"),
    "a trigger": (
        sql("CREATE TRIGGER more AFTER INSERT ON images BEGIN DELETE FROM images; END"),
        "unexpected trigger more; expected plain tables",
    ),
    "a pipe": (replace(os.mkfifo), "a pipe"),
    "a device": (replace(NOT_FILES["a device"]), "a device"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_shard_must_be_moved_away(gallery, name):
    damage, message = UNUSABLE[name]
    damage(gallery)
    columns(gallery).unlink()
    for opening in (read, index_again):
        with pytest.raises(GalleryError, match=rf"shard-00000\.sqlite.*{message}|{message}"):
            opening(gallery)
    shard(gallery).unlink()
    assert index_again(gallery) == (["shard-00000.sqlite was missing"], [0, 1])
    assert sorted(read(gallery)) == list(range(COUNT))


@pytest.mark.parametrize("position", [HEADER_BYTES, HEADER_BYTES + ROW_BYTES - 1, DESCRIPTORS_END - 1])
def test_a_damaged_descriptor_in_columns_is_named_once(gallery, position):
    flip(columns(gallery), position)
    with pytest.raises(GalleryError, match="run the same command again: it does not need this file"):
        read(gallery)
    assert read(gallery) == list(range(COUNT))  # the file has been removed


def test_all_damaged_images_are_named(gallery):
    flip(columns_file(shard(gallery, 1)), HEADER_BYTES)
    execute(gallery, "UPDATE maps SET data = zeroblob(3) WHERE image = 1 AND scale = 2")
    named = []
    with Gallery(gallery) as opened:
        for row in range(COUNT):
            try:
                opened.features(row)
            except GalleryError:
                named.append(row)
    assert named == [1, 2]


def test_a_damaged_image_that_is_not_given_stays_marked(gallery):
    flip_column(gallery, "maps", "data")
    with pytest.raises(GalleryError, match=r"0\.jpg: features damaged in the gallery \(checksum differs\); run"):
        read(gallery)
    for _ in range(2):
        with GalleryWriter(gallery, INFO) as writer:
            assert writer.repairs == ["damaged maps: 1 image"]
            assert writer.damaged == [path(0)]
    assert index_again(gallery)[1] == [0]
    assert read(gallery) == list(range(COUNT))


def test_rows_behind_columns_are_not_read_until_used(gallery):
    execute(gallery, "UPDATE images SET descriptor = x'00'")
    with Gallery(gallery) as opened:
        assert np.array_equal(opened.descriptors[0], features(0).descriptor)
        with pytest.raises(GalleryError, match=r"/photos/0\.jpg: features damaged"):
            opened.features(0)
    assert "lost from shard-00000.sqlite: 2 images" in index_again(gallery)[0]


def test_rows_are_checked_when_there_are_no_columns(gallery):
    flip_column(gallery, "images", "descriptor")
    columns(gallery).unlink()
    with pytest.raises(GalleryError, match="features damaged"):
        Gallery(gallery)


def test_maps_of_lost_rows_take_no_space(gallery):
    execute(gallery, "DELETE FROM images WHERE id = 0")
    columns(gallery).unlink()
    GalleryWriter(gallery, INFO).close()
    with closing(sqlite3.connect(shard(gallery))) as connection:
        assert connection.execute("SELECT DISTINCT image FROM maps").fetchall() == [(1,)]


def test_a_gallery_without_its_json_is_not_written_to(gallery):
    (gallery / "gallery.json").unlink()
    with pytest.raises(GalleryError, match=r"gallery\.json is missing; restore it"):
        GalleryWriter(gallery, INFO)


def test_the_log_of_a_shard_that_was_moved_away_is_not_applied(tmp_path):
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        put(writer, range(3))
        killed = shutil.copytree(tmp_path / "g", tmp_path / "killed")
    shard(killed).rename(tmp_path / "away.sqlite")
    with GalleryWriter(killed, INFO) as writer:
        assert writer.repairs == ["shard-00000.sqlite was missing"]
        put(writer, [9])
    assert read(killed) == [9]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_not_stored(tmp_path, value):
    made = features(0)
    made.maps[1][0, 0, 0] = value
    with GalleryWriter(tmp_path / "g", INFO) as writer, pytest.raises(GalleryError, match="features are not finite"):
        writer.put(path(0), STAMP, made)
    assert read(tmp_path / "g") == []


@pytest.mark.parametrize("make", [os.mkfifo, lambda file: file.symlink_to(file.parent.parent / "elsewhere")])
def test_the_damage_marker_follows_no_link_and_waits_for_no_pipe(gallery, make):
    make(gallery / DAMAGED)
    flip_column(gallery, "maps", "data")
    with pytest.raises(GalleryError, match="features damaged"):
        read(gallery)
    assert not (gallery.parent / "elsewhere").exists()


def test_verify_names_damage_for_the_next_writer(gallery):
    assert verify(gallery).damaged == {}
    assert not (gallery / DAMAGED).exists()
    file = columns_file(shard(gallery, 1))
    flip(file, HEADER_BYTES + 100)
    flip_column(gallery, "maps", "data", 1)
    assert verify(gallery).damaged == {path(1): "checksum differs", file: "checksum differs"}
    with GalleryWriter.reopen(gallery) as writer:
        assert writer.damaged == [path(1)]
    repair(gallery)
    assert (verify(gallery).intact, verify(gallery).damaged) == (4, {})
    assert read(gallery) == [0, 2, 3, 4]
