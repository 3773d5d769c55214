"""`serve --runner ray` on a real cluster: three workers find what one process finds, bit for bit; one is killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.gallery.indexing import IndexReport, find_images, index
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.engine.retrieval.searcher import Plan, Searcher
from cvnet_engine.server.access import Access
from cvnet_engine.server.app import create_app
from cvnet_engine.server.served_gallery import ServedGallery, id_of
from cvnet_engine.server.service import ModelInfo
from tests.pictures import photo

ROOT = Path(__file__).parents[3]
PROGRAM = [sys.executable, "-m", "cvnet_engine"]
COUNT, PER_SHARD, WORKERS = 14, 2, 3
WAIT_S, TRIES = 600, 5
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "RAY_OVERRIDE_RESOURCES": f'{{"CPU": {WORKERS}}}'}
Ask = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of two sizes; the last is a copy of the first, which stands in another shard."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(COUNT):
        photo(folder / f"{number:02}.jpg", 96, 96 + 32 * (number % 2), seed=number % (COUNT - 1))
    return find_images([folder])


@pytest.fixture(scope="module")
def gallery(bundle: Path, photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery") / "g"
    add(bundle, photos, folder)
    return folder


def add(bundle: Path, photos: list[Path], gallery: Path) -> None:
    opened = Bundle(bundle)
    info = GalleryInfo.made_with(opened.manifest, None, "float16")
    with GalleryWriter(gallery, info, PER_SHARD) as writer, Engines.open(opened, 1) as engines:
        index(photos, engines, writer, None, IndexReport())


@pytest.fixture(scope="module")
def ask(bundle: Path, gallery: Path) -> Iterator[Ask]:
    """Asks the server of the workers."""
    pytest.importorskip("ray", reason="Ray is not installed")
    program, url = started(bundle, gallery)

    def asked(path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return json.load(answer)

    try:
        yield asked
    finally:
        program.send_signal(signal.SIGINT)
        code = program.wait(WAIT_S)
    assert code == 0


def started(bundle: Path, gallery: Path) -> tuple[subprocess.Popen[str], str]:
    """The program and its address. Ray gives up after 30 s, which may be too few for a machine with much else to do."""
    command = [*PROGRAM, "serve", "--bundle", bundle, "--gallery", gallery, "--port", "0", "--threads", "1"]
    command += ["--runner", "ray", "--workers", str(WORKERS)]
    for _ in range(TRIES):
        program = subprocess.Popen(
            [*map(str, command)], cwd=gallery.parent, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
        )
        assert program.stdout
        for line in program.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                return program, found[0]
        assert program.wait(60) == 1
    pytest.fail("Ray does not start")


@contextlib.contextmanager
def local(bundle: Path, gallery: Path) -> Iterator[TestClient]:
    """The server of one process."""
    manifest = Bundle(bundle).manifest
    with Engines.open(Bundle(bundle), 1) as engines:
        served = ServedGallery(gallery, GalleryInfo.made_with(manifest, None, "float16"), engines)
        app = create_app(engines, served, ModelInfo(manifest.model, manifest.features_id, None), Access("127.0.0.1"))
        with TestClient(app, "http://127.0.0.1") as client:
            yield client


def workers_of(folder: Path) -> list[int]:
    """Processes that were started from there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").resolve() == folder and b"ray::ShardWorker" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def until(ask: Ask, query: dict[str, Any], wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first answer of the kind that is waited for."""
    given_up = time.monotonic() + WAIT_S
    while time.monotonic() < given_up:
        answer = ask("/v1/search", query)
        if wanted(answer):
            return answer
    pytest.fail("no such answer")


def test_what_is_found_is_what_one_process_finds(bundle, gallery, photos, ask):
    one, everything = {"id": id_of(photos[4])}, {"top_k": COUNT, "rerank": 9}
    queries = [one | everything | {"method": method} for method in ("cvnet", "superglobal", "both")]
    queries += [
        one | everything | {"rerank_full": 3},
        one | everything | {"name": "1"},
        {"id": id_of(photos[0]), "top_k": 2},
    ]
    queries += [one | everything | {"box": [10, 10, 80, 90]}]
    with local(bundle, gallery) as client:
        for query in queries:
            found, expected = ask("/v1/search", query), client.post("/v1/search", json=query).json()
            assert found["results"] == expected["results"], query
            assert (found["images"], found["partial"], found["missing"]) == (expected["images"], False, None)
        shortlist = one | {"candidates": [str(path) for path in photos[2:12]]}
        expected = client.post("/v1/rerank", json=shortlist).json()
    assert ask("/v1/rerank", shortlist)["results"] == expected["results"]


def test_a_replica_that_is_killed_is_missing_until_it_is_replaced(bundle, gallery, photos, ask):
    query = {"id": id_of(photos[4]), "top_k": COUNT, "rerank": 9}
    whole = until(ask, query, lambda answer: not answer["partial"])
    victims = workers_of(gallery.parent)
    assert len(victims) == WORKERS
    os.kill(victims[0], signal.SIGKILL)
    partial = until(ask, query, lambda answer: answer["partial"])
    with Gallery(gallery) as opened, Engines.open(Bundle(bundle), 1) as engines:
        found = {hit["path"] for hit in partial["results"]}
        rest = np.array([row for row, path in enumerate(opened.paths) if str(path) in found])  # without the query
        lost = partial["missing"]["images"]
        assert partial["missing"] == {"images": lost, "workers": 1, "of": WORKERS}
        assert lost in {len(share) for share in opened.shard_ranges(WORKERS)}
        assert COUNT - lost - len(rest) in (0, 1)  # the query itself may be among the lost
        with Searcher(engines, opened) as searcher:
            ranking = searcher.find(opened.features(4), Plan(COUNT, 9), selection=rest).ranking
        assert [hit["path"] for hit in partial["results"]] == [str(opened.paths[row]) for row in ranking.rows]
        assert [hit["score"] for hit in partial["results"]] == ranking.scores.tolist()
    again = until(ask, query, lambda answer: not answer["partial"])
    assert again["results"] == whole["results"]
    assert victims[0] not in workers_of(gallery.parent)


def test_a_gallery_that_grows_is_opened_again(bundle, gallery, photos, ask, tmp_path):
    add(bundle, [photo(tmp_path / "new.jpg", 96, 96, seed=99)], gallery)
    query = {"id": id_of(photos[4]), "top_k": COUNT + 1, "rerank": COUNT + 1}
    found = until(ask, query, lambda answer: answer["images"] == COUNT + 1)
    with local(bundle, gallery) as client:
        assert found["results"] == client.post("/v1/search", json=query).json()["results"]
