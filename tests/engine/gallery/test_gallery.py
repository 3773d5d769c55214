"""A gallery returns what was put in, in order; settings that do not fit, and full disks, are errors of one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.errors import GalleryError, RemovedError
from cvnet_engine.engine.gallery import reader
from cvnet_engine.engine.gallery.info import require_equal
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.engine.disks import fill, make_readonly, small_disk
from tests.galleries import INFO, STAMP, assert_equal, execute, features, path, put, read, write

PATHS = [path(n) for n in range(7)]


# ------------------------------------------------------------------------------------------------- contents


def test_stamps_are_stored_by_row(tmp_path):
    stamps = [replace(STAMP, size=n) for n in range(3)]
    with GalleryWriter(tmp_path / "g", INFO, images_per_shard=2) as writer:
        for n, stamp in enumerate(stamps):
            writer.put(PATHS[n], stamp, features(n))
    with Gallery(tmp_path / "g") as gallery:
        assert [gallery.stamp(row) for row in range(3)] == stamps
        execute(tmp_path / "g", "DELETE FROM images WHERE id = 1")
        with pytest.raises(GalleryError, match="no longer in the gallery"):
            gallery.stamp(1)


@pytest.mark.parametrize(("per_shard", "shards"), [(100, 1), (7, 1), (3, 3), (1, 7)])
def test_round_trip_in_order_over_shards(tmp_path, per_shard, shards):
    write(tmp_path / "g", range(7), per_shard)
    assert len(list((tmp_path / "g").glob("shard-*.sqlite"))) == shards
    assert read(tmp_path / "g") == list(range(7))


def test_a_new_writer_appends(tmp_path):
    for start, stop in ((0, 2), (2, 2), (2, 7)):
        with GalleryWriter(tmp_path / "g", INFO, images_per_shard=3) as writer:
            assert len(writer) == start
            put(writer, range(start, stop))
    assert read(tmp_path / "g") == list(range(7))


def test_maps_are_stored_in_float16(tmp_path):
    made = features(0)
    precise = replace(made, maps=tuple(m.astype(np.float32) * 1.0001 for m in made.maps))
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        writer.put(PATHS[0], STAMP, precise)
    rounded = replace(made, maps=tuple(m.astype(np.float16) for m in precise.maps))
    assert_equal(Gallery(tmp_path / "g").features(0), rounded)


def test_a_replaced_image_keeps_its_row(tmp_path):
    write(tmp_path / "g", range(3))
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        writer.put(PATHS[1], replace(STAMP, digest="cd"), features(99, ((2, 2), (4, 4), (5, 5))))
        assert writer.stamp(PATHS[1]) == replace(STAMP, digest="cd")
    gallery = Gallery(tmp_path / "g")
    assert gallery.paths == PATHS[:3]
    assert_equal(gallery.features(1), features(99, ((2, 2), (4, 4), (5, 5))))
    assert gallery.map_size(1) == (5, 5)
    assert_equal(gallery.features(2), features(2))


def test_touch_changes_the_time_only(tmp_path):
    write(tmp_path / "g", range(3))
    touched = replace(STAMP, mtime_ns=STAMP.mtime_ns + 1)
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        writer.touch(PATHS[1], touched, None)
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        assert [writer.stamp(path) for path in PATHS[:3]] == [STAMP, touched, STAMP]
    read(tmp_path / "g")


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
    gallery = Gallery(write(tmp_path / "g", []))
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


def test_a_reader_sees_committed_images(tmp_path):
    with GalleryWriter(tmp_path / "g", INFO, images_per_shard=2) as writer:
        for count in (1, 2, 3):
            put(writer, range(count - 1, count))
            assert read(tmp_path / "g") == list(range(count))


def test_a_removal_while_opening_is_not_damage(tmp_path, monkeypatch):
    """An image that is removed while a shard is opened is no damage."""

    def removing(*_: object) -> None:
        with GalleryWriter(tmp_path / "g", INFO) as writer:
            writer.remove(PATHS[1:2])

    write(tmp_path / "g", range(3))
    monkeypatch.setattr(reader, "open_columns", removing)
    with Gallery(tmp_path / "g") as gallery:
        assert gallery.paths == PATHS[:3]


def test_maps_are_read_in_one_snapshot_with_their_row(tmp_path, monkeypatch):
    read_maps = reader.read_maps

    def replacing(*row: object) -> object:
        with GalleryWriter(tmp_path / "g", INFO) as writer:
            writer.remove(PATHS[2:3])
            put(writer, range(3, 4))
        return read_maps(*row)

    with Gallery(write(tmp_path / "g", range(3))) as gallery:
        with monkeypatch.context() as patched:
            patched.setattr(reader, "read_maps", replacing)
            assert_equal(gallery.features(2), features(2))
        with pytest.raises(RemovedError, match=r"/photos/2\.jpg: no longer in the gallery"):
            gallery.features(2)


def test_a_replaced_image_is_refused_by_an_open_gallery(tmp_path):
    """Its maps are as large as those before, and would be scored beside the old descriptor."""
    with Gallery(write(tmp_path / "g", range(3))) as gallery:
        with GalleryWriter(tmp_path / "g", INFO) as writer:
            writer.put(PATHS[1], STAMP, features(99))
        with pytest.raises(RemovedError, match=r"/photos/1\.jpg: has changed since; open the gallery again"):
            gallery.features(1)
        assert_equal(gallery.features(2), features(2))
    assert not (tmp_path / "g" / "damaged").exists()


def test_a_killed_writer_leaves_no_shard_without_tables(tmp_path):
    write(tmp_path / "g", range(3))
    (tmp_path / "g" / "shard-00001.new").write_bytes(b"half a shard")
    read(tmp_path / "g")
    with GalleryWriter(tmp_path / "g", INFO, images_per_shard=3) as writer:
        put(writer, range(3, 4))
    assert read(tmp_path / "g") == list(range(4))
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
def test_features_with_other_settings_are_refused(tmp_path, other, message):
    write(tmp_path / "g", range(3))
    with pytest.raises(GalleryError, match=message):
        GalleryWriter(tmp_path / "g", other)
    with pytest.raises(GalleryError, match=message):
        require_equal(Gallery(tmp_path / "g").info, other, tmp_path / "g")
    with GalleryWriter(tmp_path / "g", INFO):
        pass  # the refused writer left no lock


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_gallery_of_another_format_is_refused(tmp_path, number):
    write(tmp_path / "g", range(3))
    info = json.loads((tmp_path / "g" / "gallery.json").read_text())
    (tmp_path / "g" / "gallery.json").write_text(json.dumps(info | {"format": number}))
    for opening in (Gallery, lambda path: GalleryWriter(path, INFO)):
        with pytest.raises(GalleryError, match=r"3 \(format is \d\); index .*: 'cvnet-engine index IMAGES") as caught:
            opening(tmp_path / "g")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 1}', "\0\xff", "null"])
def test_damaged_gallery_json(tmp_path, content):
    write(tmp_path / "g", range(3))
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
def test_invalid_fields_of_gallery_json_are_named(tmp_path, change):
    info = json.loads((write(tmp_path / "g", range(3)) / "gallery.json").read_text())
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
def test_changed_settings_fail_the_checksum(tmp_path, change):
    """A query shrunk to another side than the gallery's images would score otherwise, and nothing would say so."""
    info = json.loads((write(tmp_path / "g", range(3)) / "gallery.json").read_text())
    (tmp_path / "g" / "gallery.json").write_text(json.dumps(info | change))
    with pytest.raises(GalleryError, match="checksum differs"):
        Gallery(tmp_path / "g")


def test_gallery_json_must_be_a_regular_file(tmp_path):
    for make in (os.mkfifo, lambda file: file.symlink_to("/dev/zero")):
        file = write(tmp_path / make.__name__, range(3)) / "gallery.json"
        file.unlink()
        make(file)
        for opening in (Gallery, lambda path: GalleryWriter(path, INFO)):
            with pytest.raises(GalleryError, match=r"a pipe|a device"):
                opening(file.parent)


@pytest.mark.parametrize("name", ["absent", "folder", "file", "file/below"])
def test_a_folder_that_is_not_a_gallery_is_refused(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(GalleryError, match="not a gallery"):
        Gallery(tmp_path / name)


@pytest.mark.parametrize("name", ["file", "file/below", "n" * 300])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(GalleryError, match="not accessible"):
        GalleryWriter(tmp_path / name, INFO)


# ------------------------------------------------------------------------------------- full and fixed disks


@pytest.mark.parametrize("size_kib", [16, 200, 500, 1500])  # no shard, half of one, no image, some images
def test_a_full_disk_keeps_committed_images(tmp_path, size_kib):
    with small_disk(tmp_path / "disk", 8000) as disk:
        (disk / "reserve").write_bytes(bytes(1024 * (8000 - size_kib)))
        message = "free some space and run the same command again"
        with GalleryWriter(disk / "g", INFO, images_per_shard=3) as writer:
            with pytest.raises(GalleryError, match=message) as caught:
                put(writer, range(7))
            stored = len(writer)
        assert "\n" not in str(caught.value)
        assert read(disk / "g") == list(range(stored))
        assert stored < 7

        (disk / "reserve").unlink()
        with GalleryWriter(disk / "g", INFO, images_per_shard=3) as writer:
            assert len(writer) == stored
            put(writer, range(stored, 7))
        assert read(disk / "g") == list(range(7))


def test_reading_needs_no_space(tmp_path):
    with small_disk(tmp_path / "disk", 3000) as disk:
        write(disk / "g", range(3))
        fill(disk)
        assert read(disk / "g") == list(range(3))


def test_a_readonly_gallery_is_readable(tmp_path):
    with small_disk(tmp_path / "disk", 3000) as disk:
        write(disk / "g", range(3))
        read(disk / "g")
        make_readonly(disk)
        assert read(disk / "g") == list(range(3))
        with pytest.raises(GalleryError, match="not accessible"):
            GalleryWriter(disk / "g", INFO)


def test_a_readonly_copy_with_a_log_is_refused(tmp_path):
    with small_disk(tmp_path / "disk", 5000) as disk:
        with GalleryWriter(tmp_path / "g", INFO) as writer:
            put(writer, range(3))
            shutil.copytree(tmp_path / "g", disk / "g")
        make_readonly(disk)
        with pytest.raises(GalleryError, match="open it once where it is writable"):
            Gallery(disk / "g")
