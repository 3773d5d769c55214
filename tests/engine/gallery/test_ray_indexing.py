"""A gallery indexed in parts, here or on a Ray cluster, equals one indexed in one go, whatever is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery import ray_indexing as parts
from cvnet_engine.engine.gallery.indexing import IndexReport, find_images, index
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.map_codecs import parse_kind
from cvnet_engine.engine.gallery.ray_indexing import PARTS, cut, discard, make, outdated, take_in
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.retrieval.engines import Engines
from tests.engine.clusters import ENVIRONMENT, worker_processes
from tests.galleries import INFO, FakeEngines, features
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


def test_parts_give_the_gallery_of_one_run(photos, tmp_path):
    report = in_parts(photos, tmp_path / "parts")
    assert_same(tmp_path / "parts", in_one_go(photos, tmp_path / "whole"))
    assert (report.added, report.updated, report.unchanged) == (COUNT - 1, 0, 0)
    assert list(report.failed) == [photos[4]]
    assert not list((tmp_path / "parts" / parts.PARTS).iterdir())


def test_only_new_and_changed_images_are_indexed_again(photos, tmp_path):
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


def test_missing_exif_metadata_is_added(photos, tmp_path):
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


def test_an_interrupted_part_is_resumed(photos, tmp_path, monkeypatch):
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


def test_an_interrupted_copy_of_a_part_is_resumed(photos, tmp_path, monkeypatch):
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


def test_the_folder_of_a_part_depends_on_list_and_settings(photos, tmp_path):
    folders = {
        part.folder
        for change in ({}, {"max_side_px": 512}, {"maps": "coded:24"}, {"features_id": "x"}, {"scales": (1.0,)})
        for length in (4, 3)
        for part in cut(photos[:length], photos, tmp_path, replace(INFO, **change), images=4)
    }
    assert len(folders) == 10
    assert cut(photos, photos, tmp_path, INFO) == cut(photos, photos, tmp_path, INFO)


def test_a_finished_part_is_used_if_it_has_all_images_needed(photos, tmp_path):
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
def test_a_half_removed_part_is_unfinished(photos, tmp_path, monkeypatch, maps, gone):
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


MIXED = 14
INDEX = """
import sys
from pathlib import Path
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.cluster import Cluster
from cvnet_engine.engine.gallery.indexing import IndexReport, find_images
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.ray_indexing import index_on_cluster
from cvnet_engine.engine.gallery.writer import GalleryWriter

bundle, mixed, gallery = Bundle(Path(sys.argv[1])), find_images([Path(sys.argv[2])]), Path(sys.argv[3])
cluster, report = Cluster(workers=2, threads=1), IndexReport()
with GalleryWriter(gallery, GalleryInfo.made_with(bundle.manifest, None, sys.argv[4])) as writer:
    index_on_cluster(mixed, bundle, writer, report, cluster, lambda path: print(path, flush=True), images_per_part=2)
print(report.added, report.updated, report.unchanged, len(report.failed), flush=True)
"""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two sizes, one of which is none."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(MIXED):
        photo(folder / f"{number:02}.jpg", 96, 96 + 32 * (number % 2), seed=number)
    (folder / "05.jpg").write_bytes(b"no image")
    return folder


def local(bundle: Path, mixed: Path, gallery: Path, maps: str = "float16") -> None:
    opened = Bundle(bundle)
    with (
        GalleryWriter(gallery, GalleryInfo.made_with(opened.manifest, None, maps)) as writer,
        Engines.open(opened, 1) as engines,
    ):
        index(find_images([mixed]), engines, writer, None, IndexReport())


def assert_same(one: Path, other: Path) -> None:
    with Gallery(one) as a, Gallery(other) as b:
        assert list(a.paths) == list(b.paths)
        assert len(a)
        for row in range(len(a)):
            assert a.stamp(row) == b.stamp(row)
            for ours, theirs in zip(
                (a.descriptors[row], *a.features(row).maps), (b.descriptors[row], *b.features(row).maps), strict=True
            ):
                assert np.array_equal(ours, theirs)


@contextlib.contextmanager
def running(bundle: Path, mixed: Path, gallery: Path, maps: str = "float16") -> Iterator[subprocess.Popen[str]]:
    """The program, started in the gallery's parent folder; its workers are known by that."""
    command = [sys.executable, "-c", INDEX, str(bundle), str(mixed), str(gallery), maps]
    with subprocess.Popen(command, cwd=gallery.parent, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as program:
        try:
            yield program
        finally:
            program.kill()


@pytest.fixture
def ray_is_here() -> None:
    pytest.importorskip("ray", reason="Ray is not installed")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_is_here")
@pytest.mark.parametrize("maps", ["float16", "coded:16"])
def test_a_cluster_gives_the_gallery_of_one_process(bundle, mixed, tmp_path, maps):
    with running(bundle, mixed, tmp_path / "g", maps) as program:
        out, _ = program.communicate(timeout=300)
    assert program.returncode == 0
    assert out.split("\n")[-2] == f"{MIXED - 1} 0 0 1"
    assert out.split("\n")[:MIXED] == [str(path) for path in find_images([mixed])]
    local(bundle, mixed, tmp_path / "local", maps)
    assert_same(tmp_path / "g", tmp_path / "local")
    assert not list((tmp_path / "g" / PARTS).iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("ray_is_here")
def test_a_worker_that_is_killed_is_replaced(bundle, mixed, tmp_path):
    with running(bundle, mixed, tmp_path / "g") as program:
        assert program.stdout
        program.stdout.readline()
        victims = worker_processes("PartWorker", str(tmp_path))
        assert victims
        os.kill(victims[0], signal.SIGKILL)
        program.communicate(timeout=300)
    assert program.returncode == 0
    local(bundle, mixed, tmp_path / "local")
    assert_same(tmp_path / "g", tmp_path / "local")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_is_here")
def test_a_killed_run_is_resumed(bundle, mixed, tmp_path):
    with running(bundle, mixed, tmp_path / "g") as program:
        assert program.stdout
        for _ in range(3):
            program.stdout.readline()
        program.kill()
    with running(bundle, mixed, tmp_path / "g") as program:
        out, _ = program.communicate(timeout=300)
    assert program.returncode == 0
    added, updated, unchanged, failed = map(int, out.split("\n")[-2].split())
    assert (added + unchanged, updated, failed) == (MIXED - 1, 0, 1)
    assert unchanged
    local(bundle, mixed, tmp_path / "local")
    assert_same(tmp_path / "g", tmp_path / "local")
