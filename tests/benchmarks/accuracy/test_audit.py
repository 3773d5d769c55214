"""The precision audit: its copies of data sets, its maps, its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from cvnet_engine.benchmarks.accuracy.audit import Cost, codec, cost, markdown, shrunk
from cvnet_engine.benchmarks.accuracy.database import Database
from cvnet_engine.benchmarks.accuracy.dataset import Dataset, GroundTruth
from cvnet_engine.engine.features import Features
from tests.engine.fakes import FakeRetriever, features

NONE = np.empty(0, np.int64)


def test_a_shrunk_set_keeps_its_boxes_on_what_they_framed(tmp_path: Path) -> None:
    picture = np.zeros((200, 400, 3), np.uint8)
    picture[40:120, 100:300] = 255
    cv2.imwrite(str(tmp_path / "query.jpg"), picture)
    cv2.imwrite(str(tmp_path / "small.jpg"), picture[:50, :60])
    truth = GroundTruth((100.0, 40.0, 300.0, 120.0), np.array([0]), NONE, NONE)
    whole = Dataset("pair", (tmp_path / "small.jpg",), (tmp_path / "query.jpg",), (truth,))
    small = shrunk(whole, 200, tmp_path / "shrunk")
    (query,), (image,) = small.queries, small.images
    assert cv2.imread(str(query)).shape == (100, 200, 3)
    assert cv2.imread(str(image)).shape == (50, 60, 3)
    assert small.ground_truth[0].bbx == (50.0, 20.0, 150.0, 60.0)
    assert cv2.imread(str(query))[20:60, 50:150].mean() > 245
    assert small.ground_truth[0].easy is truth.easy


def test_images_of_equal_names_in_a_shrunk_set_stay_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "1.jpg", tmp_path / "b" / "1.jpg", tmp_path / "b" / "1.png"]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((40, 60, 3), 100 * number, np.uint8))
    truth = GroundTruth((0.0, 0.0, 60.0, 40.0), np.array([0]), NONE, NONE)
    small = shrunk(Dataset("alike", tuple(paths[1:]), (paths[0],), (truth,)), 30, tmp_path / "shrunk")
    assert [cv2.imread(str(path)).mean() for path in (*small.queries, *small.images)] == [0, 100, 200]


def test_maps_are_kept_as_a_gallery_keeps_them() -> None:
    rng = np.random.default_rng(0)
    maps = [rng.standard_normal((256, side, side), np.float32) for side in (8, 12, 20)]
    features = Features(np.ones(4, np.float32), tuple(m / np.linalg.norm(m, axis=0) for m in maps))
    kinds = ("float16", "int8", "coded:24", "coded:8")
    databases = [Database.as_kept([features], codec(kind, [features])) for kind in kinds]
    losses = [np.abs(database.features(0).maps[2] - features.maps[2]).max() for database in databases]
    assert databases[0].features(0).maps[2].dtype == np.float16
    assert 0 < losses[0] < losses[1] < losses[2] < losses[3]
    assert databases[3].map_size(0) == features.map_size


def test_the_table_tells_the_distance_from_the_first_precision() -> None:
    rows = {
        "fp32": {"global M": [50.0, 72.5], "reranked M": [60.0, 80.0]},
        "int8": {"global M": [49.0, 72.0], "reranked M": [60.0, 80.2]},
    }
    costs = {name: asdict(Cost(128_880, 0.0512, 0.04, 0.066)) for name in rows}
    head = {"machine": {"cpu": "a CPU"}, "date": "today", "command": "audit"}
    lines = markdown(head | {"costs": costs, "datasets": {"test": rows}}).splitlines()
    assert "| precision | global M | reranked M | bytes of an image's maps | reading them, of a pair's time |" in lines
    assert "| fp32 | 61.25 | 70.00 | 128,880 | 5.1% (4.0% to 6.6%) |" in lines
    assert "| int8 | -0.75 ± 0.25 | +0.10 ± 0.10 | 128,880 | 5.1% (4.0% to 6.6%) |" in lines


@pytest.mark.parametrize(("kind", "of_position"), [("float16", 512), ("int8", 260), ("coded:24", 24)])
def test_what_maps_take_is_measured_on_a_gallery(kind: str, of_position: int, tmp_path: Path) -> None:
    images = [features(seed, ((8, 10), (11, 14), (16, 20))) for seed in range(2)]
    scored: list[Features] = []

    class Scoring(FakeRetriever):
        def score(self, query: Features, keys: Sequence[Features]) -> np.ndarray:
            scored.extend(keys)
            return super().score(query, keys)

    found = cost(Scoring(), kind, codec(kind, images), images, tmp_path / "g")
    assert found.image_bytes == of_position * (8 * 10 + 11 * 14 + 16 * 20)
    assert 0 < found.low <= found.read_share <= found.high
    assert np.array_equal(scored[0].descriptor, images[1].descriptor)
