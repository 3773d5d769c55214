"""Fixtures shared by the whole suite: the seeded models and the golden outputs of the published code."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.cvnet import checkpoint
from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine.bundle import Bundle, sha256, write_manifest
from cvnet_engine.engine.graphs import IMAGE_GRAPHS
from cvnet_engine.engine.retrieval.retriever import Retriever
from cvnet_engine.export.build import build
from cvnet_engine.export.graphs import DESCRIPTOR, FEATURES
from cvnet_engine.export.onnx_export import cut, export
from tests.engine.approximate import make_gallery
from tests.golden_inputs import GOLDEN

# A suite that was started in the background has SIGINT ignored, and so would programs that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def seeded_model() -> Callable[[int], CVNet]:
    """depth -> the seeded model, seed 0, loaded once."""
    return cache(lambda depth: checkpoint.load("seeded:0", depth))


@pytest.fixture(scope="session")
def golden() -> Callable[[int], dict[str, np.ndarray]]:
    """depth -> outputs of the published code on the seeded model."""
    return cache(lambda depth: dict(np.load(GOLDEN / f"cvnet_r{depth}_seed0.npz")))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the seeded ResNet-50, built once; `CVNET_TEST_BUNDLE` names a ready one to save the minute."""
    if "CVNET_TEST_BUNDLE" in os.environ:
        return Path(os.environ["CVNET_TEST_BUNDLE"])
    out = tmp_path_factory.mktemp("built") / "bundle"
    build("seeded:0", 50, out, "onnxruntime")
    return out


@pytest.fixture(scope="session")
def retriever(bundle: Path) -> Iterator[Retriever]:
    """The retriever of `bundle`."""
    opened = Retriever.open(Bundle(bundle))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def approximate_gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery with an approximate index; to be left as it is."""
    path = tmp_path_factory.mktemp("approximate") / "g"
    make_gallery(path)
    return path


@pytest.fixture(scope="session")
def superglobal_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the seeded ResNet-50's image graphs with SuperGlobal's descriptor."""
    folder = tmp_path_factory.mktemp("superglobal")
    export_image_graphs(checkpoint.load("seeded:0", 50, descriptor="superglobal"), folder)
    return folder


@pytest.fixture(scope="session")
def superglobal_bundle(superglobal_graphs: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bundle` with those image graphs."""
    folder, manifest = tmp_path_factory.mktemp("superglobal") / "bundle", Bundle(bundle).manifest
    shutil.copytree(bundle, folder)
    graphs = dict(manifest.graphs)
    for name in IMAGE_GRAPHS:
        shutil.copy(superglobal_graphs / f"{name}.onnx", folder)
        graphs[name] = replace(graphs[name], sha256=sha256(folder / f"{name}.onnx"))
    write_manifest(replace(manifest, graphs=graphs, descriptor="superglobal"), folder)
    return folder


def export_image_graphs(model: CVNet, folder: Path) -> None:
    export(FEATURES, model, folder / "features.onnx")
    cut(folder / "features.onnx", DESCRIPTOR, folder / "descriptor.onnx")
