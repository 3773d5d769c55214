"""A gallery returns what was put in, in order; whatever else is there is a GalleryError of one line."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.errors import GalleryError, RemovedError
from cvnet_engine.engine.gallery import reader
from cvnet_engine.engine.gallery.columns import columns_file
from cvnet_engine.engine.gallery.info import GalleryInfo, require_equal
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import FileStamp
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.engine.disks import fill, make_readonly, small_disk
from tests.galleries import INFO, STAMP, assert_equal, features

PATHS = [Path(f"/photos/{n}.jpg") for n in range(7)]
SHARD = "shard-00000.sqlite"


def put(writer: GalleryWriter, numbers: range) -> None:
    for n in numbers:
        writer.put(PATHS[n], STAMP, features(n))


def write(folder: Path, count: int = 3, info: GalleryInfo = INFO, **options: int) -> Path:
    with GalleryWriter(folder, info, **options) as writer:
        put(writer, range(count))
    return folder


def edit(folder: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(folder / SHARD) as shard:
        assert shard.execute(statement, values).rowcount == 1
    shard.close()


def read_all(folder: Path) -> None:
    """Every row equals what was put in."""
    gallery = Gallery(folder)
    assert gallery.paths == PATHS[: len(gallery)]
    for row in range(len(gallery)):
        expected = features(row)
        assert_equal(gallery.features(row), expected)
        assert gallery.map_size(row) == expected.map_size
        assert np.array_equal(gallery.descriptors[row], expected.descriptor)
    gallery.close()


# ------------------------------------------------------------------------------------------------- contents


def test_a_row_knows_what_its_file_looked_like(tmp_path):
    stamps = [replace(STAMP, size=n) for n in range(3)]
    with GalleryWriter(tmp_path / "g", INFO, images_per_shard=2) as writer:
        for n, stamp in enumerate(stamps):
            writer.put(PATHS[n], stamp, features(n))
    with Gallery(tmp_path / "g") as gallery:
        assert [gallery.stamp(row) for row in range(3)] == stamps
        edit(tmp_path / "g", "DELETE FROM images WHERE id = 1")
        with pytest.raises(GalleryError, match="no longer in the gallery"):
            gallery.stamp(1)


@pytest.mark.parametrize(("per_shard", "shards"), [(100, 1), (7, 1), (3, 3), (1, 7)])
def test_round_trip_in_order_over_shards(tmp_path, per_shard, shards):
    write(tmp_path / "g", 7, images_per_shard=per_shard)
    assert len(list((tmp_path / "g").glob("shard-*.sqlite"))) == shards
    assert len(Gallery(tmp_path / "g")) == 7
    read_all(tmp_path / "g")


def test_appending_goes_on_where_the_last_writer_stopped(tmp_path):
    for start, stop in ((0, 2), (2, 2), (2, 7)):
        with GalleryWriter(tmp_path / "g", INFO, images_per_shard=3) as writer:
            assert len(writer) == start
            put(writer, range(start, stop))
    assert len(Gallery(tmp_path / "g")) == 7
    read_all(tmp_path / "g")


def test_maps_are_stored_in_float16(tmp_path):
    made = features(0)
    precise = replace(made, maps=tuple(m.astype(np.float32) * 1.0001 for m in made.maps))
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        writer.put(PATHS[0], STAMP, precise)
    rounded = replace(made, maps=tuple(m.astype(np.float16) for m in precise.maps))
    assert_equal(Gallery(tmp_path / "g").features(0), rounded)


def test_a_replaced_image_keeps_its_row(tmp_path):
    write(tmp_path / "g")
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        writer.put(PATHS[1], replace(STAMP, digest="cd"), features(99, ((2, 2), (4, 4), (5, 5))))
        assert writer.stamp(PATHS[1]) == replace(STAMP, digest="cd")
    gallery = Gallery(tmp_path / "g")
    assert gallery.paths == PATHS[:3]
    assert_equal(gallery.features(1), features(99, ((2, 2), (4, 4), (5, 5))))
    assert gallery.map_size(1) == (5, 5)
    assert_equal(gallery.features(2), features(2))


def test_a_touched_image_changes_its_time_alone(tmp_path):
    write(tmp_path / "g")
    touched = replace(STAMP, mtime_ns=STAMP.mtime_ns + 1)
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        writer.touch(PATHS[1], touched, None)
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        assert [writer.stamp(path) for path in PATHS[:3]] == [STAMP, touched, STAMP]
    read_all(tmp_path / "g")


@pytest.mark.parametrize(
    "name", [b"with space.jpg", "caf\u00e9 \u65e5\u672c.jpg".encode(), b"bad\xff\xfe.jpg", b"a\nb.jpg"]
)
def test_any_file_name(tmp_path, name):
    path = Path(os.fsdecode(b"/photos/" + name))
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        writer.put(path, STAMP, features(0))
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        assert writer.stamp(path) == STAMP
    assert Gallery(tmp_path / "g").paths == [path]


def test_an_empty_gallery(tmp_path):
    gallery = Gallery(write(tmp_path / "g", 0))
    assert (len(gallery), gallery.descriptors.shape) == (0, (0, 2048))


# ----------------------------------------------------------------------------------------- several processes


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path):
    second = f"""
from pathlib import Path
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.galleries import INFO
GalleryWriter(Path({str(tmp_path / "g")!r}), INFO)
"""
    with GalleryWriter(tmp_path / "g", INFO):
        refused = subprocess.run([sys.executable, "-c", second], capture_output=True, text=True)
    assert refused.returncode == 1
    assert "GalleryInUseError" in refused.stderr.splitlines()[-1]
    assert "another process is writing" in refused.stderr
    assert subprocess.run([sys.executable, "-c", second]).returncode == 0


def test_a_reader_sees_what_is_committed_while_the_writer_writes(tmp_path):
    with GalleryWriter(tmp_path / "g", INFO, images_per_shard=2) as writer:
        for count in (1, 2, 3):
            put(writer, range(count - 1, count))
            assert len(Gallery(tmp_path / "g")) == count
            read_all(tmp_path / "g")


def test_a_reader_counts_the_images_of_one_moment(tmp_path, monkeypatch):
    """An image that is removed while a shard is opened is no damage."""

    def removing(*_: object) -> None:
        with GalleryWriter(tmp_path / "g", INFO) as writer:
            writer.remove(PATHS[1:2])

    write(tmp_path / "g")
    monkeypatch.setattr(reader, "open_columns", removing)
    with Gallery(tmp_path / "g") as gallery:
        assert gallery.paths == PATHS[:3]


def test_maps_are_those_of_the_row_though_another_image_takes_its_number(tmp_path, monkeypatch):
    read_maps = reader.read_maps

    def replacing(*row: object) -> object:
        with GalleryWriter(tmp_path / "g", INFO) as writer:
            writer.remove(PATHS[2:3])
            put(writer, range(3, 4))
        return read_maps(*row)

    with Gallery(write(tmp_path / "g")) as gallery:
        with monkeypatch.context() as patched:
            patched.setattr(reader, "read_maps", replacing)
            assert_equal(gallery.features(2), features(2))
        with pytest.raises(RemovedError, match=r"/photos/2\.jpg: no longer in the gallery"):
            gallery.features(2)


def test_an_image_that_was_replaced_is_not_taken_for_the_one_that_was_opened(tmp_path):
    """Its maps are as large as those before, and would be scored beside the old descriptor."""
    with Gallery(write(tmp_path / "g")) as gallery:
        with GalleryWriter(tmp_path / "g", INFO) as writer:
            writer.put(PATHS[1], STAMP, features(99))
        with pytest.raises(RemovedError, match=r"/photos/1\.jpg: has changed since; open the gallery again"):
            gallery.features(1)
        assert_equal(gallery.features(2), features(2))
    assert not (tmp_path / "g" / "damaged").exists()


def test_a_killed_writer_leaves_no_shard_without_tables(tmp_path):
    write(tmp_path / "g")
    (tmp_path / "g" / "shard-00001.new").write_bytes(b"half a shard")
    read_all(tmp_path / "g")
    with GalleryWriter(tmp_path / "g", INFO, images_per_shard=3) as writer:
        put(writer, range(3, 4))
    assert len(Gallery(tmp_path / "g")) == 4
    assert not list((tmp_path / "g").glob("*.new"))


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(INFO, features_id="another-fp32"), "made with another model"),
        (replace(INFO, descriptor="superglobal"), "has descriptors of CVNet; the bundle computes SuperGlobal's"),
        (replace(INFO, max_side_px=512), "made with --max-side 1024; got 512"),
        (replace(INFO, max_side_px=None), "made with --max-side 1024; got 0"),
        (replace(INFO, scales=(0.7071, 1.0)), "made with --scales 0.7071,1,1.4142; got 0.7071,1: use the same"),
    ],
)
def test_features_of_another_kind_are_refused(tmp_path, other, message):
    write(tmp_path / "g")
    with pytest.raises(GalleryError, match=message):
        GalleryWriter(tmp_path / "g", other)
    with pytest.raises(GalleryError, match=message):
        require_equal(Gallery(tmp_path / "g").info, other, tmp_path / "g")
    with GalleryWriter(tmp_path / "g", INFO):
        pass  # the refused writer left no lock


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_gallery_of_another_format_is_refused(tmp_path, number):
    write(tmp_path / "g")
    info = json.loads((tmp_path / "g" / "gallery.json").read_text())
    (tmp_path / "g" / "gallery.json").write_text(json.dumps(info | {"format": number}))
    for opening in (Gallery, lambda path: GalleryWriter(path, INFO)):
        with pytest.raises(GalleryError, match=r"3 \(format is \d\); index .*: 'cvnet-engine index IMAGES") as caught:
            opening(tmp_path / "g")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 1}', "\0\xff", "null"])
def test_damaged_gallery_json(tmp_path, content):
    write(tmp_path / "g")
    (tmp_path / "g" / "gallery.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(GalleryError, match=r"gallery\.json: not of a gallery of format 3"):
        Gallery(tmp_path / "g")


@pytest.mark.parametrize(
    "change",
    [
        {"features_id": 7},
        {"weights": None},
        {"max_side_px": "1024"},
        {"max_side_px": 10.5},
        {"maps": "int4"},
        {"descriptor": "fisher"},
        {"scales": [0.7071]},
        {"scales": [1.0, 0.7071]},
        {"scales": [1.0, 2.0]},
        {"scales": "1"},
        {"shards": -1},
        {"shards": 10**9},
        {"shards": True},
        {"colour": "blue"},
        {"checksum": "none"},
    ],
)
def test_other_fields_than_gallery_json_has(tmp_path, change):
    info = json.loads((write(tmp_path / "g") / "gallery.json").read_text())
    (tmp_path / "g" / "gallery.json").write_text(json.dumps(info | change))
    for opening in (Gallery, lambda path: GalleryWriter(path, INFO)):
        with pytest.raises(GalleryError, match=f"gallery.json: not of a gallery of format 3 .*{next(iter(change))}"):
            opening(tmp_path / "g")


@pytest.mark.parametrize(
    "change",
    [
        {"max_side_px": 1004},
        {"max_side_px": None},
        {"features_id": "x"},
        {"maps": "coded:8"},
        {"scales": [0.7071, 1.0]},
    ],
)
def test_fields_of_another_gallery_are_noticed(tmp_path, change):
    """A query shrunk to another side than the gallery's images would score otherwise, and nothing would say so."""
    info = json.loads((write(tmp_path / "g") / "gallery.json").read_text())
    (tmp_path / "g" / "gallery.json").write_text(json.dumps(info | change))
    with pytest.raises(GalleryError, match="checksum differs"):
        Gallery(tmp_path / "g")


def test_a_gallery_from_before_scales_were_chosen_has_all(tmp_path):
    file = write(tmp_path / "g") / "gallery.json"
    info = json.loads(file.read_text())
    assert info.pop("scales") == [0.7071, 1.0, 1.4142]
    file.write_text(json.dumps(info))
    assert Gallery(tmp_path / "g").info == replace(INFO, shards=1)


@pytest.mark.parametrize("name", ["gallery.json", "shard-00000.sqlite"])
def test_a_pipe_or_device_in_a_files_place_is_not_waited_for(tmp_path, name):
    for make in (os.mkfifo, lambda file: file.symlink_to("/dev/zero")):
        file = write(tmp_path / make.__name__) / name
        file.unlink()
        make(file)
        for opening in (Gallery, lambda path: GalleryWriter(path, INFO)):
            with pytest.raises(GalleryError, match=r"a pipe|a device"):
                opening(file.parent)


@pytest.mark.parametrize("name", ["absent", "folder", "file", "file/below"])
def test_no_gallery(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(GalleryError, match="not a gallery"):
        Gallery(tmp_path / name)


@pytest.mark.parametrize("name", ["file", "file/below", "n" * 300])
def test_no_place_for_a_gallery(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(GalleryError, match="not accessible"):
        GalleryWriter(tmp_path / name, INFO)


# --------------------------------------------------------------------------------------------------- damage


def flipped(blob: bytes, position: int) -> bytes:
    return blob[:position] + bytes([blob[position] ^ 1]) + blob[position + 1 :]


@pytest.mark.parametrize("position", [0, 1000, -1])
@pytest.mark.parametrize("scale", [0, 1, 2])
def test_a_flipped_byte_in_a_map_is_reported_with_its_image(tmp_path, scale, position):
    write(tmp_path / "g")
    blob = features(1).maps[scale].tobytes()
    edit(tmp_path / "g", "UPDATE maps SET data = ? WHERE image = 1 AND scale = ?", flipped(blob, position), scale)
    gallery = Gallery(tmp_path / "g")
    assert_equal(gallery.features(0), features(0))
    with pytest.raises(GalleryError, match=r"/photos/1\.jpg: features damaged"):
        gallery.features(1)


def test_a_flipped_byte_in_a_descriptor_is_reported(tmp_path):
    write(tmp_path / "g")
    blob = flipped(features(1).descriptor.tobytes(), 77)
    edit(tmp_path / "g", "UPDATE images SET descriptor = ? WHERE id = 1", blob)
    with Gallery(tmp_path / "g") as gallery, pytest.raises(GalleryError, match="features damaged"):
        gallery.features(1)
    columns_file(tmp_path / "g" / SHARD).unlink()  # all rows are read
    with pytest.raises(GalleryError, match="features damaged"):
        Gallery(tmp_path / "g")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE images SET path = '/photos/9.jpg' WHERE id = 1",
        "UPDATE images SET height = 6, width = 4 WHERE id = 1",
        "UPDATE images SET descriptor = 7 WHERE id = 1",
        "UPDATE maps SET height = 3, width = 2 WHERE image = 1 AND scale = 0",
        "UPDATE maps SET channels = NULL WHERE image = 1 AND scale = 0",
        "UPDATE maps SET data = 'text' WHERE image = 1 AND scale = 0",
        "UPDATE maps SET scale = 3 WHERE image = 1 AND scale = 0",
        "DELETE FROM maps WHERE image = 1 AND scale = 2",
    ],
)
def test_other_damage_is_reported(tmp_path, statement):
    write(tmp_path / "g")
    with sqlite3.connect(tmp_path / "g" / SHARD) as shard:
        shard.execute("PRAGMA writable_schema = ON")
        shard.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '')")
    shard.close()
    edit(tmp_path / "g", statement)
    with pytest.raises(GalleryError, match="damaged"):
        Gallery(tmp_path / "g").features(1)


@pytest.mark.parametrize("content", [b"", b"no database" * 1000])
def test_a_shard_that_is_none(tmp_path, content):
    write(tmp_path / "g")
    (tmp_path / "g" / SHARD).write_bytes(content)
    with pytest.raises(GalleryError, match="not accessible"):
        Gallery(tmp_path / "g")


def test_a_flipped_bit_anywhere_changes_nothing_or_is_an_error(tmp_path):
    whole = (write(tmp_path / "g") / SHARD).read_bytes()
    rng, page, errors = random.Random(0), 65536, []
    heads = [start + offset for start in range(0, len(whole), page) for offset in range(200)]
    ends = [start - offset for start in range(page, len(whole) + 1, page) for offset in range(1, 600)]
    for position in [*rng.sample(heads, 60), *rng.sample(ends, 60), *rng.sample(range(len(whole)), 20)]:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.randrange(8)
        for left_over in (tmp_path / "g").glob(f"{SHARD}*"):
            left_over.unlink()
        (tmp_path / "g" / SHARD).write_bytes(damaged)
        try:
            read_all(tmp_path / "g")
        except GalleryError as error:
            errors.append(str(error))
    assert len(errors) > 10
    assert not any("\n" in error or "free some space" in error for error in errors)


# ------------------------------------------------------------------------------------- full and fixed disks


@pytest.mark.parametrize("size_kib", [16, 200, 500, 1500])  # no shard, half of one, no image, some images
def test_a_full_disk_keeps_what_is_committed_and_goes_on_with_more_space(tmp_path, size_kib):
    with small_disk(tmp_path / "disk", 8000) as disk:
        (disk / "reserve").write_bytes(bytes(1024 * (8000 - size_kib)))
        message = "free some space and run the same command again"
        with GalleryWriter(disk / "g", INFO, images_per_shard=3) as writer:
            with pytest.raises(GalleryError, match=message) as caught:
                put(writer, range(7))
            stored = len(writer)
        assert "\n" not in str(caught.value)
        assert len(Gallery(disk / "g")) == stored < 7
        read_all(disk / "g")

        (disk / "reserve").unlink()
        with GalleryWriter(disk / "g", INFO, images_per_shard=3) as writer:
            assert len(writer) == stored
            put(writer, range(stored, 7))
        assert len(Gallery(disk / "g")) == 7
        read_all(disk / "g")


def test_reading_needs_no_space(tmp_path):
    with small_disk(tmp_path / "disk", 3000) as disk:
        write(disk / "g")
        fill(disk)
        assert len(Gallery(disk / "g")) == 3
        read_all(disk / "g")


def test_a_readonly_gallery_is_readable_also_after_earlier_readers(tmp_path):
    with small_disk(tmp_path / "disk", 3000) as disk:
        write(disk / "g")
        read_all(disk / "g")
        make_readonly(disk)
        assert len(Gallery(disk / "g")) == 3
        read_all(disk / "g")
        with pytest.raises(GalleryError, match="not accessible"):
            GalleryWriter(disk / "g", INFO)


def test_a_readonly_copy_of_a_killed_writers_gallery_says_so(tmp_path):
    with small_disk(tmp_path / "disk", 5000) as disk:
        with GalleryWriter(tmp_path / "g", INFO) as writer:
            put(writer, range(3))
            shutil.copytree(tmp_path / "g", disk / "g")
        make_readonly(disk)
        with pytest.raises(GalleryError, match="open it once where it is writable"):
            Gallery(disk / "g")


def test_stamps_tell_changed_files(tmp_path):
    write(tmp_path / "g")
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        assert writer.stamp(PATHS[0]) == FileStamp(1000, STAMP.mtime_ns, "ab" * 32)
        assert writer.stamp(Path("/photos/new.jpg")) is None
