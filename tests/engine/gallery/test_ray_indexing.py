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

from engine.bundle import Bundle
from engine.errors import BackendError
from engine.gallery.indexing import IndexReport, find_images, index
from engine.gallery.info import GalleryInfo
from engine.gallery.parts import PARTS
from engine.gallery.ray_indexing import Cluster, count_workers, workers
from engine.gallery.reader import Gallery
from engine.gallery.writer import GalleryWriter
from engine.geometry import IMAGE_SCALES
from engine.retrieval.retriever import Retriever
from tests.pictures import photo

ROOT = Path(__file__).parents[3]
COUNT = 14
INDEX = """
import sys
from pathlib import Path
from engine.bundle import Bundle
from engine.gallery.indexing import IndexReport, find_images
from engine.gallery.info import GalleryInfo
from engine.gallery.ray_indexing import Cluster, index_on_cluster
from engine.gallery.writer import GalleryWriter

bundle, photos, gallery = Bundle(Path(sys.argv[1])), find_images([Path(sys.argv[2])]), Path(sys.argv[3])
cluster, report = Cluster(workers=2, threads=1, images_per_part=2), IndexReport()
with GalleryWriter(gallery, GalleryInfo.made_with(bundle.manifest, None, sys.argv[4])) as writer:
    index_on_cluster(photos, bundle, writer, report, cluster, lambda path: print(path, flush=True))
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
        Retriever.open(opened, 1) as retriever,
    ):
        index(find_images([photos]), retriever, writer, None, IndexReport())


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
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=gallery.parent, env=environment, stdout=subprocess.PIPE, text=True) as program:
        try:
            yield program
        finally:
            program.kill()


def worker_processes(folder: Path) -> list[int]:
    """Those of the cluster that were started from there and have engines."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").resolve() == folder and b"ray::Worker" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


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
        victims = worker_processes(tmp_path)
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


@pytest.mark.usefixtures("ray_is_here")
def test_a_cluster_that_is_not_there_is_one_line(bundle):
    with (
        pytest.raises(BackendError, match=r"no Ray cluster at '127.0.0.1:1'; start one with 'ray start --head'"),
        workers(Bundle(bundle), Cluster("127.0.0.1:1"), IMAGE_SCALES),
    ):
        pytest.fail("there is one")


@pytest.mark.parametrize(
    ("resources", "needed", "expected"),
    [
        ({"CPU": 8.0}, {"num_cpus": 2, "num_gpus": 0}, 4),
        ({"CPU": 8.0, "GPU": 3.0}, {"num_cpus": 2, "num_gpus": 1}, 3),
        ({"CPU": 8.0}, {"num_cpus": 2, "num_gpus": 1}, 0),
        ({"CPU": 1.0}, {"num_cpus": 2, "num_gpus": 0}, 0),
    ],
)
def test_as_many_workers_as_there_is_room_for(resources, needed, expected):
    assert count_workers(resources, needed) == expected
