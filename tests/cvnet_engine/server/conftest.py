"""A server with a gallery of twelve small photos and fake engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.indexing import IndexReport, index
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.images import check_size
from cvnet_engine.engine.retrieval.engines import batches_of_equal
from cvnet_engine.engine.retrieval.pooling import Pooled
from cvnet_engine.server.access import Access
from cvnet_engine.server.app import create_app
from cvnet_engine.server.scheduler import Scheduler
from cvnet_engine.server.served_gallery import ServedGallery
from cvnet_engine.server.service import ModelInfo
from tests.galleries import INFO, FakeEngines
from tests.pictures import dated, photo

IMAGES = 12
TOKEN = "correct horse battery"
LOCAL = "http://127.0.0.1:8080"


class ScoringEngines(FakeEngines):
    """Pair scores that depend on the two descriptors alone."""

    def extract(self, image):
        check_size(image)
        return super().extract(image)

    def score_batches(self, query: Features, collection, rows, _is_needed=None):
        for batch in batches_of_equal(rows, collection.map_size):
            whole = collection.whole if isinstance(collection, Pooled) else collection
            factor = 991 if isinstance(collection, Pooled) else 997
            yield batch, (np.abs(whole.descriptors[batch] @ query.descriptor * factor) % 1).astype(np.float32)


def add(gallery: Path, photos: list[Path]) -> None:
    with GalleryWriter(gallery, INFO) as writer:
        index(photos, ScoringEngines(), writer, INFO.max_side_px, IndexReport())


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Photos in two folders; the first half taken on a day of June each, from the 1st on."""
    for folder in ("harbour", "Abbey"):
        (tmp_path / folder).mkdir()
    found = []
    for seed in range(IMAGES):
        exif = dated(f"2019:06:{seed + 1:02} 12:00:00") if seed < IMAGES // 2 else b""
        found.append(photo(tmp_path / ("harbour", "Abbey")[seed % 2] / f"view {seed}.jpg", seed=seed, exif=exif))
    return found


@pytest.fixture
def gallery(photos: list[Path], tmp_path: Path) -> Path:
    add(tmp_path / "gallery", photos)
    return tmp_path / "gallery"


@pytest.fixture
def served(gallery: Path) -> ServedGallery:
    return ServedGallery(gallery, INFO, ScoringEngines())


Serve = Callable[..., TestClient]


@pytest.fixture
def serve(served: ServedGallery) -> Iterator[Serve]:
    """Starts a server and gives a client of it."""
    clients = []

    def start(access: Access | None = None, scheduler: Scheduler | None = None, base_url: str = LOCAL) -> TestClient:
        about = ModelInfo("fake model", INFO.features_id, "a notice")
        app = create_app(ScoringEngines(), served, about, access or Access("127.0.0.1"), scheduler)
        clients.append(TestClient(app, base_url, raise_server_exceptions=False))
        return clients[-1].__enter__()

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serve: Serve) -> TestClient:
    return serve()


@pytest.fixture
def run(gallery: Path) -> Iterator[Callable[..., Any]]:
    """Starts servers with ports of their own, see `Running`."""
    from tests.cvnet_engine.server.running import Running

    running: list[Running] = []

    def start(path: Path = gallery, **options: Any) -> Running:
        running.append(Running(path, **options))
        return running[-1]

    yield start
    for server in running:
        server.stop()
