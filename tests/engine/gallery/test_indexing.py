"""Indexing resumes at any point with nothing lost, extracts each image once, and reports what it cannot read."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from threading import Barrier, Lock

import pytest

from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import GalleryError, ImageError, install_hint
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery import indexing
from cvnet_engine.engine.gallery.indexing import IndexReport, find, find_images, index
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.images import decode
from cvnet_engine.engine.retrieval.engines import Engines
from tests.galleries import INFO, FakeEngines, rows
from tests.hostile.tiny import write_bundle
from tests.pictures import photo


def run(
    sources: Sequence[Path],
    gallery: Path,
    max_side_px: int | None = None,
    engines: FakeEngines | None = None,
    **options: Callable[[Path], None],
) -> tuple[IndexReport, FakeEngines]:
    report, engines = IndexReport(), engines or FakeEngines()
    with GalleryWriter(gallery, INFO) as writer:
        index(find_images(sources), engines, writer, max_side_px, report, **options)
    return report, engines


def counts(report: IndexReport) -> tuple[int, int, int, int]:
    return report.added, report.updated, report.unchanged, len(report.failed)


# ----------------------------------------------------------------------------------------------- resumption


def test_a_second_run_decodes_nothing(photos, tmp_path, monkeypatch):
    assert counts(run([photos], tmp_path / "g")[0]) == (5, 0, 0, 0)
    before = rows(tmp_path / "g")
    monkeypatch.setattr(indexing, "decode", None)
    monkeypatch.setattr(indexing, "read_bytes", None)
    report, engines = run([photos], tmp_path / "g")
    assert (counts(report), engines.seen) == ((0, 0, 5, 0), 0)
    assert rows(tmp_path / "g") == before


def test_a_touched_file_is_not_extracted_again(photos, tmp_path, monkeypatch):
    run([photos], tmp_path / "g")
    os.utime(photos / "3.jpg", ns=(1, 2_000_000_000))
    report, engines = run([photos], tmp_path / "g")
    assert (counts(report), engines.seen) == ((0, 0, 5, 0), 0)
    monkeypatch.setattr(indexing, "read_bytes", None)  # the new time is known now: not even read
    assert counts(run([photos], tmp_path / "g")[0]) == (0, 0, 5, 0)


def test_a_changed_file_is_extracted_again_in_its_row(photos, tmp_path):
    run([photos], tmp_path / "g")
    photo(photos / "3.jpg", 90, 70, seed=99)
    report, engines = run([photos], tmp_path / "g")
    assert (counts(report), engines.seen) == ((0, 1, 4, 0), 1)
    photo(tmp_path / "photos" / "5.jpg", seed=5)
    run([photos], tmp_path / "g")
    run([photos], tmp_path / "fresh")
    assert rows(tmp_path / "g") == rows(tmp_path / "fresh")


def test_what_is_done_when_a_run_stops_stays_done(photos, tmp_path):
    def stop(path: Path) -> None:
        if path.name == "2.jpg":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([photos], tmp_path / "g", done=stop)
    assert [path.name for path in Gallery(tmp_path / "g").paths] == ["0.jpg", "1.jpg", "2.jpg"]
    report, engines = run([photos], tmp_path / "g")
    assert (counts(report), engines.seen) == ((2, 0, 3, 0), 2)


def test_an_image_that_is_named_twice_is_stored_once(photos, tmp_path):
    report, _ = run([photos, photos / "1.jpg", photos / ".." / "photos" / "2.jpg"], tmp_path / "g")
    assert counts(report) == (5, 0, 0, 0)


# -------------------------------------------------------------------------------------------------- reports


def test_unreadable_files_are_reported_and_do_not_stop_the_run(photos, tmp_path):
    whole = (photos / "0.jpg").read_bytes()
    bad = {
        "cut.jpg": (whole[: len(whole) // 2], "damaged"),
        "empty.jpg": (b"", "not an image"),
        "text.png": (b"Dear diary", "not an image"),
    }
    for name, (data, _) in bad.items():
        (photos / name).write_bytes(data)
    photo(photos / "thin.jpg", 1, 3000)
    report, _ = run([photos], tmp_path / "g", max_side_px=64)
    assert counts(report) == (5, 0, 0, 4)
    assert report.usable == 5
    assert all(expected in report.failed[photos / name] for name, (_, expected) in bad.items())
    assert "too few" in report.failed[photos / "thin.jpg"]
    assert len(Gallery(tmp_path / "g")) == 5


def test_an_image_that_is_too_much_for_the_memory_is_reported_and_does_not_stop_the_run(photos, tmp_path, monkeypatch):
    def decode_but(data: bytes) -> Array:
        if data == (photos / "1.jpg").read_bytes():
            raise MemoryError
        return decode(data)

    class Sparing(FakeEngines):
        def extract(self, image: Array) -> Features:
            if self.seen == 2:
                self.seen += 1
                raise MemoryError
            return super().extract(image)

    monkeypatch.setattr(indexing, "decode", decode_but)
    report, _ = run([photos], tmp_path / "g", engines=Sparing())
    assert counts(report) == (3, 0, 0, 2)
    assert all("out of memory; a smaller --max-side" in reason for reason in report.failed.values())
    assert photos / "1.jpg" in report.failed


def test_a_file_that_vanishes_is_reported(photos, tmp_path):
    def vanish(_: Path) -> None:
        (photos / "4.jpg").unlink(missing_ok=True)

    sources = [*(photos / f"{n}.jpg" for n in range(4)), *([photos / "0.jpg"] * 9), photos / "4.jpg"]
    report, engines = IndexReport(), FakeEngines()
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        index(sources, engines, writer, None, report, vanish)
    assert list(report.failed) == [photos / "4.jpg"]
    assert "No such file" in report.failed[photos / "4.jpg"]


def test_a_good_file_gone_bad_keeps_its_features(photos, tmp_path):
    run([photos], tmp_path / "g")
    (photos / "1.jpg").write_bytes(b"overwritten")
    report, _ = run([photos], tmp_path / "g")
    assert counts(report) == (0, 0, 4, 1)
    assert len(Gallery(tmp_path / "g")) == 5


def test_a_gallery_that_cannot_be_written_stops_the_run(photos, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise GalleryError("full")

    monkeypatch.setattr(GalleryWriter, "put", full)
    with pytest.raises(GalleryError):
        run([photos], tmp_path / "g")


# ------------------------------------------------------------------------------------------------- streams


def test_as_many_images_are_extracted_at_once_as_there_are_streams(photos, tmp_path):
    """And stored in their order, whichever is done first."""

    class Meeting(FakeEngines):
        at_once = 0

        def extract(self, image: Array) -> Features:
            with lock:
                self.at_once += 1
                assert self.at_once <= 2
                is_early = next(entered) < 2
            if is_early:  # of those that come later one may have to wait alone, for a place in the order
                met.wait(timeout=60)
            with lock:
                self.at_once -= 1
            return super().extract(image)

    lock, met, entered = Lock(), Barrier(2), count()
    for seed in range(5, 8):
        photo(photos / f"{seed}.jpg", seed=seed)
    report, _ = run([photos], tmp_path / "g", engines=Meeting(streams=2))
    assert counts(report) == (8, 0, 0, 0)
    run([photos], tmp_path / "one")
    assert Gallery(tmp_path / "g").paths == [photos / f"{n}.jpg" for n in range(8)]
    assert rows(tmp_path / "g") == rows(tmp_path / "one")


def test_streams_of_engines_give_what_one_gives(photos, tmp_path):
    bundle = Bundle(write_bundle(tmp_path / "tiny"))
    for streams in (1, 3):
        made = GalleryInfo.made_with(bundle.manifest, None, "float16")
        with (
            GalleryWriter(tmp_path / str(streams), made) as writer,
            Engines.open(bundle, 1, streams=streams) as engines,
        ):
            index(find_images([photos]), engines, writer, None, IndexReport())
    assert rows(tmp_path / "1") == rows(tmp_path / "3")


def test_how_many_images_at_once(tmp_path, monkeypatch):
    bundle = Bundle(write_bundle(tmp_path / "tiny"))
    monkeypatch.setattr(indexing, "usable_threads", lambda threads: threads or 16)
    assert [indexing.streams(bundle, threads, 1024) for threads in (1, 2, None)] == [1, 2, 4]
    assert indexing.streams(bundle, None, None) == 1  # any size, and so any memory
    monkeypatch.setattr(indexing, "on_gpu", lambda _: True)
    assert indexing.streams(bundle, None, 1024) == 1


# ---------------------------------------------------------------------------------------------- file names


@pytest.mark.parametrize(
    "name", [b"with space.jpg", "caf\u00e9 \u65e5\u672c.JPG".encode(), b"bad\xff\xfe.jpg", b"-.jpg"]
)
def test_any_file_name(tmp_path, name):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    photo(path)
    assert counts(run([tmp_path], tmp_path / "g")[0]) == (1, 0, 0, 0)
    assert counts(run([path], tmp_path / "g")[0]) == (0, 0, 1, 0)
    assert Gallery(tmp_path / "g").paths == [path]


def test_find_images_walks_folders_in_order_and_leaves_out_what_is_hidden_or_no_image(tmp_path):
    for name in ("b.jpg", "a/z.PNG", "a/b/c.webp", ".hidden.jpg", ".hidden/d.jpg", "notes.txt", "folder.jpg/e.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in find_images([tmp_path])]
    assert found == ["a/b/c.webp", "a/z.PNG", "b.jpg", "folder.jpg/e.tif"]
    assert find_images([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]


def test_what_is_passed_over_is_listed_with_the_reason(tmp_path, monkeypatch):
    for library in ("pillow_heif", "rawpy"):
        monkeypatch.setitem(sys.modules, library, None)
    for name in ("a.jpg", "notes.txt", "holiday.HEIC", "b.dng", ".hidden/d.jpg", "no suffix"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "absent")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "linked").symlink_to(tmp_path)
    found = find([tmp_path, tmp_path / "notes.txt"])
    assert [path.name for path in found.images] == ["a.jpg", "notes.txt"]  # one that is named is taken
    assert {path.name: reason for path, reason in found.skipped.items()} == {
        ".hidden": "hidden",
        "b.dng": "raw files of cameras need rawpy: " + install_hint("photos"),
        "broken.jpg": "cannot be read (No such file or directory)",
        "holiday.HEIC": "HEIC photos need pillow_heif: " + install_hint("photos"),
        "linked": "a link to a folder",
        "loop.jpg": "cannot be read (Too many levels of symbolic links)",
        "no suffix": "not an image by its name",
        "pipe.jpg": "a pipe",
    }


def test_a_folder_that_cannot_be_listed_is_passed_over_and_named(photos, monkeypatch):
    def refusing(folder: Path) -> Iterator[os.DirEntry[str]]:
        if folder.name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return scandir(folder)

    scandir = os.scandir
    (photos / "locked").mkdir()
    monkeypatch.setattr(os, "scandir", refusing)
    found = find([photos])
    assert (len(found.images), found.skipped) == (5, {photos / "locked": "cannot be read (Permission denied)"})


def test_a_pipe_or_device_that_is_named_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for source, what in ((tmp_path / "pipe", "a pipe"), (Path("/dev/zero"), "a device")):
        with pytest.raises(ImageError, match=f"{source}: {what}; expected an image file or a folder"):
            find([source])


@pytest.mark.parametrize("source", [".", "../photos", "./../photos/.", "0.jpg", "../photos/0.jpg"])
def test_a_file_goes_by_one_name_wherever_it_is_named_from(photos, monkeypatch, source):
    monkeypatch.chdir(photos)
    assert find_images([Path(source)])[0] == photos / "0.jpg"


def test_links_keep_their_name(photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    (photos / "other.jpg").symlink_to(photos / "0.jpg")
    assert find_images([tmp_path / "link" / "1.jpg"]) == [tmp_path / "link" / "1.jpg"]
    assert photos / "other.jpg" in find_images([photos])


def test_a_folder_of_photos_that_are_not_read_here_says_what_they_need(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "holiday.heic").touch()
    with pytest.raises(ImageError, match="1 passed over: HEIC photos need pillow_heif: run pip install"):
        find_images([tmp_path])


@pytest.mark.parametrize("source", ["absent", "empty", "file/below", "n" * 300])
def test_sources_without_images(tmp_path, source):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ImageError):
        find_images([tmp_path / source])
