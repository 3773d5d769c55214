"""Fixtures shared by the whole suite: the seeded models and the golden outputs of the published code."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.cvnet import checkpoint
from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine.bundle import Bundle, sha256, write_manifest
from cvnet_engine.engine.geometry import IMAGE_GRAPHS
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.export.build import BuildSettings, build
from cvnet_engine.export.graphs import DESCRIPTOR, FEATURES
from cvnet_engine.export.onnx_export import cut, export
from tests.bundles import copy_bundle
from tests.galleries import write_approximate
from tests.golden_inputs import GOLDEN
from tests.hostile.tiny import write_bundle

MEMORY = Path("/dev/shm")
ROOM_BYTES = 6 << 30  # with less memory free, temporary files stay on the disk
if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
    # Temporary files in memory, for pytest, for the tests and for the programs that they start.
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

# A suite that was started in the background has SIGINT ignored, and so would programs that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def seeded_model() -> Callable[[int], CVNet]:
    """Function from depth to the model seeded with 0, loaded once."""
    return cache(lambda depth: checkpoint.load("seeded:0", depth))


@pytest.fixture(scope="session")
def golden() -> Callable[[int], dict[str, np.ndarray]]:
    """Function from depth to outputs of the published code on the seeded model."""
    return cache(lambda depth: dict(np.load(GOLDEN / f"cvnet_r{depth}_seed0.npz")))


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Function that has `make` fill a folder of this name once for all test processes. Tests must not change it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, unfinished = root / name, root / f"{name}.unfinished"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return made


@pytest.fixture(scope="session")
def seeded_bundle(made_once) -> Path:
    """A bundle of the seeded ResNet-50; `CVNET_TEST_BUNDLE` names an existing one, which saves a minute."""
    if "CVNET_TEST_BUNDLE" in os.environ:
        return Path(os.environ["CVNET_TEST_BUNDLE"])
    return made_once("bundle", lambda out: build(BuildSettings("seeded:0", 50, "onnxruntime"), out))


@pytest.fixture(scope="session")
def bundle(seeded_bundle: Path) -> Path:
    """The bundle for the tests of a folder; a conftest.py may replace it, for example with the tiny one."""
    return seeded_bundle


@pytest.fixture(scope="session")
def tiny_bundle(made_once) -> Path:
    """A bundle of tiny graphs, for tests of the program rather than of the model."""
    return made_once("tiny", write_bundle)


@pytest.fixture(scope="session")
def engines(bundle: Path) -> Iterator[Engines]:
    """The engines of `bundle`."""
    opened = Engines.open(Bundle(bundle))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def approximate_gallery(made_once) -> Path:
    """A gallery with an approximate index."""
    return made_once("approximate", write_approximate)


@pytest.fixture(scope="session")
def superglobal_graphs(made_once) -> Path:
    """A folder of the seeded ResNet-50's image graphs with SuperGlobal's descriptor."""

    def make(folder: Path) -> None:
        folder.mkdir()
        export_image_graphs(checkpoint.load("seeded:0", 50, descriptor="superglobal"), folder)

    return made_once("superglobal_graphs", make)


@pytest.fixture(scope="session")
def superglobal_bundle(superglobal_graphs: Path, bundle: Path, made_once) -> Path:
    """`bundle` with the image graphs of `superglobal_graphs`."""

    def make(folder: Path) -> None:
        copy_bundle(bundle, folder)
        manifest = Bundle(bundle).manifest
        graphs = dict(manifest.graphs)
        for name in IMAGE_GRAPHS:
            (folder / f"{name}.onnx").unlink()
            (folder / f"{name}.onnx").symlink_to(superglobal_graphs / f"{name}.onnx")
            graphs[name] = replace(graphs[name], sha256=sha256(folder / f"{name}.onnx"))
        write_manifest(replace(manifest, graphs=graphs, descriptor="superglobal"), folder)

    return made_once("superglobal_bundle", make)


def export_image_graphs(model: CVNet, folder: Path) -> None:
    export(FEATURES, model, folder / "features.onnx")
    cut(folder / "features.onnx", DESCRIPTOR, folder / "descriptor.onnx")
