"""`serve` with real engines: what the command line finds, the API finds; and what it refuses to start with."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from cvnet_engine.commands import index, search, serve
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import CvnetError
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.options import IndexOptions, SearchOptions, ServeOptions
from cvnet_engine.server.access import Access
from cvnet_engine.server.app import create_app
from cvnet_engine.server.served_gallery import ServedGallery
from cvnet_engine.server.service import ModelInfo
from scenes import SceneSet, write

PROGRAM = [sys.executable, "-c", "from cvnet_engine.cli import main; main()"]
TINY = SceneSet("tiny", seed=4, scenes=2, views=3, distractors=1, size=(96, 128))
MAX_SIDE_PX = 112  # less than the images have, so that a query has to be shrunk as the gallery was


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("data")
    write(TINY, folder)
    return sorted((folder / "tiny" / "jpg").iterdir())


@pytest.fixture(scope="module")
def gallery(bundle: Path, images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery") / "g"
    index.run(IndexOptions(images, bundle, folder, max_side=MAX_SIDE_PX))
    return folder


@pytest.fixture(scope="module")
def client(bundle, gallery, engines):
    manifest = Bundle(bundle).manifest
    served = ServedGallery(gallery, GalleryInfo.made_with(manifest, MAX_SIDE_PX, "float16"), engines)
    app = create_app(engines, served, ModelInfo(manifest.model, manifest.features_id, None), Access("127.0.0.1"))
    with TestClient(app, "http://127.0.0.1") as client:
        yield client


@pytest.mark.parametrize("bbox", [None, "10,12,100.7,90"])
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_the_api_finds_what_the_command_line_finds(client, bundle, gallery, images, tmp_path, bbox, accept):
    file = tmp_path / "found.json"
    search.run(SearchOptions(bundle, gallery, [images[2]], bbox=bbox, top_k=6, rerank=5, json=file))
    ((expected),) = json.loads(file.read_text())
    fields = {"top_k": "6", "rerank": "5"} | ({"box": bbox} if bbox else {})
    answer = client.post("/v1/search", files={"image": images[2].read_bytes()}, data=fields, headers={"Accept": accept})
    text = answer.text if accept == "application/json" else answer.text.split("event: result\ndata: ")[1]
    hits = [{name: hit[name] for name in expected["results"][0]} for hit in json.loads(text)["results"]]
    assert hits == expected["results"]


def test_an_image_of_the_gallery_and_a_shortlist_of_all(client, images):
    """A gallery image goes by its stored features, is no result of its own, and a shortlist of the rest is a search."""
    names = [str(path) for path in images]
    first = client.get("/v1/images", params={"name": images[0].name}).json()["images"][0]["id"]
    searched = client.post("/v1/search", json={"id": first, "top_k": len(names)}).json()["results"]
    reranked = client.post("/v1/rerank", json={"id": first, "candidates": names[1:]}).json()["results"]
    assert sorted(hit["path"] for hit in searched) == sorted(names[1:])
    assert [(hit["id"], hit["score"]) for hit in reranked] == [(hit["id"], hit["score"]) for hit in searched]


def test_the_program_serves_until_it_is_interrupted(bundle, gallery):
    command = [*PROGRAM, "serve", "--bundle", bundle, "--gallery", gallery, "--port", "0"]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        try:
            lines = iter(program.stdout.readline, "")
            url = next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
            with urllib.request.urlopen(f"{url}/v1/gallery") as answer:
                content = json.load(answer)
            program.send_signal(signal.SIGINT)
            _, errors = program.communicate(timeout=60)
        finally:
            program.kill()
    assert "untrained" in content["notice"]
    assert (program.returncode, errors) == (0, "")


def options(bundle: Path, gallery: Path, **changes) -> ServeOptions:
    return ServeOptions(**({"bundle": bundle, "gallery": gallery, "port": 0} | changes))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "box.lan"])
@pytest.mark.parametrize("token", [None, ""])
def test_other_machines_are_let_in_with_a_token_only(bundle, gallery, host, token):
    with pytest.raises(CvnetError, match="set a --token"):
        serve.run(options(bundle, gallery, host=host, token=token))


def test_a_token_is_not_shown(bundle, gallery):
    assert "secret" not in repr(options(bundle, gallery, token="secret"))


def test_a_port_that_is_taken(bundle, gallery):
    with (
        contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken,
        pytest.raises(CvnetError, match="choose another --port"),
    ):
        serve.run(options(bundle, gallery, port=taken.getsockname()[1]))


@pytest.mark.parametrize("host", ["..", "a" * 64, "nowhere.invalid"])
def test_a_host_that_is_none(bundle, gallery, host):
    with pytest.raises(CvnetError, match="choose another --port or --host"):
        serve.run(options(bundle, gallery, host=host, token="t"))


def test_no_gallery(bundle, tmp_path):
    with pytest.raises(CvnetError, match="not a gallery"):
        serve.run(options(bundle, tmp_path / "absent"))


@pytest.mark.parametrize("module", ["uvicorn", "fastapi", "prometheus_client", "python_multipart"])
def test_a_missing_extra_is_one_line_with_the_remedy(bundle, gallery, module):
    code = f"import sys; sys.modules[{module!r}] = None; from cvnet_engine.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--bundle", str(bundle), "--gallery", str(gallery)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "pip install '.[serve]'" in done.stderr
