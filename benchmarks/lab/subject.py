"""Model and data set for the accuracy benchmarks: engines in a given precision, scenes generated if missing."""

from __future__ import annotations

import contextlib
from pathlib import Path

import scenes
from cvnet_engine.benchmarks.accuracy.dataset import Dataset, load
from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine.backends import open_engine
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.geometry import GRAPH_NAMES
from cvnet_engine.engine.retrieval.descriptors import DESCRIPTORS
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.export.artifacts import Artifacts
from cvnet_engine.export.build import calibration_photos


def open_engines(model: CVNet, precision: str, photos: list[Array], folder: Path, threads: int) -> Engines:
    """Open engines for this CPU: OpenVINO for images, the native reranker for pairs. Writes their graphs to `folder`.

    Args:
        photos: calibration images for int8, (1, 3, H, W) float32.
    """
    artifacts = Artifacts(folder, model, precision, photos, [], (), lambda _: None)
    with contextlib.ExitStack() as opened:
        engines = []
        for graph in GRAPH_NAMES:
            backend = "native" if graph == "reranker" else "openvino"
            engine = open_engine(artifacts.file(graph, backend), backend, precision, threads)
            engines.append(opened.enter_context(engine))
        opened.pop_all()
    descriptor, features, reranker = engines
    return Engines(descriptor, features, reranker, DESCRIPTORS[model.descriptor])


def load_or_generate(name: str, data_dir: Path) -> Dataset:
    """Load a data set; generated scenes are written to `data_dir` first."""
    if name in scenes.SETS:
        scenes.write(scenes.SETS[name], data_dir)
    return load(data_dir, name)


def photos_for_int8(calibration: Path | None, data_dir: Path) -> list[Array]:
    """Read the calibration images (1, 3, H, W) float32 in a folder; None stands for the validation scenes."""
    return calibration_photos(calibration or scenes.write(scenes.VALIDATION, data_dir) / "jpg", "int8")
