"""A gallery made by a real Ray cluster is the one that this process makes, row for row, whoever is killed meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.gallery.indexing import IndexReport, find_images, index
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.ray_indexing import PARTS
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.retrieval.engines import Engines
from tests.engine.clusters import ENVIRONMENT, worker_processes
from tests.pictures import photo

COUNT = 14
INDEX = """
import sys
from pathlib import Path
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.cluster import Cluster
from cvnet_engine.engine.gallery.indexing import IndexReport, find_images
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.ray_indexing import index_on_cluster
from cvnet_engine.engine.gallery.writer import GalleryWriter

bundle, photos, gallery = Bundle(Path(sys.argv[1])), find_images([Path(sys.argv[2])]), Path(sys.argv[3])
cluster, report = Cluster(workers=2, threads=1), IndexReport()
with GalleryWriter(gallery, GalleryInfo.made_with(bundle.manifest, None, sys.argv[4])) as writer:
    index_on_cluster(photos, bundle, writer, report, cluster, lambda path: print(path, flush=True), images_per_part=2)
print(report.added, report.updated, report.unchanged, len(report.failed), flush=True)
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two sizes, one of which is none."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(COUNT):
        photo(folder / f"{number:02}.jpg", 96, 96 + 32 * (number % 2), seed=number)
    (folder / "05.jpg").write_bytes(b"no image")
    return folder


def local(bundle: Path, photos: Path, gallery: Path, maps: str = "float16") -> None:
    opened = Bundle(bundle)
    with (
        GalleryWriter(gallery, GalleryInfo.made_with(opened.manifest, None, maps)) as writer,
        Engines.open(opened, 1) as engines,
    ):
        index(find_images([photos]), engines, writer, None, IndexReport())


def assert_same(one: Path, other: Path) -> None:
    with Gallery(one) as a, Gallery(other) as b:
        assert list(a.paths) == list(b.paths)
        for row in range(len(a)):
            assert a.stamp(row) == b.stamp(row)
            for ours, theirs in zip(
                (a.descriptors[row], *a.features(row).maps), (b.descriptors[row], *b.features(row).maps), strict=True
            ):
                assert np.array_equal(ours, theirs)


@contextlib.contextmanager
def running(bundle: Path, photos: Path, gallery: Path, maps: str = "float16") -> Iterator[subprocess.Popen[str]]:
    """The program, started in the gallery's parent folder; its workers are known by that."""
    command = [sys.executable, "-c", INDEX, str(bundle), str(photos), str(gallery), maps]
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
def test_the_gallery_is_the_one_that_this_process_makes(bundle, photos, tmp_path, maps):
    with running(bundle, photos, tmp_path / "g", maps) as program:
        out, _ = program.communicate(timeout=300)
    assert program.returncode == 0
    assert out.split("\n")[-2] == f"{COUNT - 1} 0 0 1"
    assert out.split("\n")[:COUNT] == [str(path) for path in find_images([photos])]
    local(bundle, photos, tmp_path / "local", maps)
    assert_same(tmp_path / "g", tmp_path / "local")
    assert not list((tmp_path / "g" / PARTS).iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("ray_is_here")
def test_a_worker_that_is_killed_is_replaced(bundle, photos, tmp_path):
    with running(bundle, photos, tmp_path / "g") as program:
        assert program.stdout
        program.stdout.readline()
        victims = worker_processes("PartWorker", str(tmp_path))
        assert victims
        os.kill(victims[0], signal.SIGKILL)
        program.communicate(timeout=300)
    assert program.returncode == 0
    local(bundle, photos, tmp_path / "local")
    assert_same(tmp_path / "g", tmp_path / "local")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_is_here")
def test_a_driver_that_is_killed_and_started_again_goes_on(bundle, photos, tmp_path):
    with running(bundle, photos, tmp_path / "g") as program:
        assert program.stdout
        for _ in range(3):
            program.stdout.readline()
        program.kill()
    with running(bundle, photos, tmp_path / "g") as program:
        out, _ = program.communicate(timeout=300)
    assert program.returncode == 0
    added, updated, unchanged, failed = map(int, out.split("\n")[-2].split())
    assert (added + unchanged, updated, failed) == (COUNT - 1, 0, 1)
    assert unchanged
    local(bundle, photos, tmp_path / "local")
    assert_same(tmp_path / "g", tmp_path / "local")
