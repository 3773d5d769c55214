"""A bundle opens only whole."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cvnet_engine.engine.bundle import Bundle, read_manifest, sha256, take_over, write_manifest
from cvnet_engine.engine.errors import BundleError
from cvnet_engine.engine.geometry import GRAPH_NAMES


@pytest.fixture
def small(bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose graphs are a few bytes: what is in them is another module's matter."""
    content = json.loads((bundle / "manifest.json").read_text())
    for name, graph in content["graphs"].items():
        file = tmp_path / graph["file"]
        file.write_bytes(f"graph {name}".encode())
        graph["sha256"] = sha256(file)
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    return tmp_path


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def test_a_built_bundle_opens(bundle):
    opened = Bundle(bundle)
    assert all(opened.graph(name).is_file() for name in GRAPH_NAMES)
    assert opened.manifest.features_id.startswith(opened.manifest.weights_digest)
    assert not opened.manifest.trained
    assert "seeded:0" in opened.manifest.model


def test_features_of_two_descriptors_have_two_ids(bundle):
    manifest = Bundle(bundle).manifest
    other = replace(manifest, descriptor="superglobal")
    assert other.features_id == f"{manifest.features_id}-superglobal"
    assert "SuperGlobal" in other.model
    assert "SuperGlobal" not in manifest.model


def test_an_unknown_descriptor(small):
    edit(small, lambda content: content.update(descriptor="fisher"))
    with pytest.raises(BundleError, match=r"descriptor is 'fisher'; expected cvnet or superglobal"):
        Bundle(small)


def test_an_unknown_backend(small):
    edit(small, lambda content: content["graphs"]["features"].update(backend="knnxruntime"))
    with pytest.raises(BundleError, match=r"backend of features is 'knnxruntime'; expected one of .*onnxruntime"):
        Bundle(small)


def test_a_manifest_is_read_as_written(small, tmp_path_factory):
    manifest, elsewhere = read_manifest(small), tmp_path_factory.mktemp("copy")
    write_manifest(manifest, elsewhere)
    assert read_manifest(elsewhere) == manifest


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (os.mkfifo, "a pipe"),
        (lambda file: file.symlink_to("/dev/zero"), "a device"),
        (lambda file: (file.touch(), os.truncate(file, 1 << 40)), "more than 16,777,216 bytes"),
    ],
)
def test_a_manifest_that_has_no_end_is_not_read(small, make, what):
    (small / "manifest.json").unlink()
    make(small / "manifest.json")
    with pytest.raises(BundleError, match=rf"not readable \({what}\)"):
        Bundle(small)


@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_a_flipped_byte(small, name):
    file = Bundle(small).graph(name)
    data = bytearray(file.read_bytes())
    data[3] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=re.escape(f"{file}: changed since it was built")):
        Bundle(small)


def test_a_flipped_byte_in_a_real_graph(bundle, tmp_path):
    file = Bundle(bundle).graph("reranker").name
    for original in bundle.iterdir():
        (tmp_path / original.name).symlink_to(original)
    data = bytearray((bundle / file).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / file).unlink()
    (tmp_path / file).write_bytes(data)
    with pytest.raises(BundleError, match=re.escape(f"{tmp_path / file}: changed since it was built")):
        Bundle(tmp_path)


@pytest.mark.parametrize("name", GRAPH_NAMES)
@pytest.mark.parametrize("instead", ["nothing", "folder"])
def test_a_missing_graph(small, name, instead):
    file = Bundle(small).graph(name)
    file.unlink()
    if instead == "folder":
        file.mkdir()
    with pytest.raises(BundleError, match=re.escape(f"{file}: missing from the bundle; build it again")):
        Bundle(small)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null", b"[]", b"{}", b'"text"', b'{"format": 2}'])
def test_a_manifest_that_is_none(small, content):
    (small / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=re.escape(str(small / "manifest.json"))) as caught:
        Bundle(small)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0, 1, "2", 2.0, True, None])
def test_another_format(small, value):
    edit(small, lambda content: content.update(format=value))
    with pytest.raises(BundleError, match="not a bundle of format 2"):
        Bundle(small)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(colour="blue"),
        lambda content: content.pop("weights_digest"),
        lambda content: content.pop("graphs"),
        lambda content: content.update(graphs=[]),
        lambda content: content.update(graphs=None),
        lambda content: content.update(graphs={"descriptor": {}, "features": {}, "reranker": {}}),
        lambda content: content["graphs"].pop("reranker"),
        lambda content: content["graphs"].update(other=content["graphs"]["reranker"]),
        lambda content: content["graphs"].update(reranker="reranker.onnx"),
        lambda content: content["graphs"]["reranker"].update(colour="blue"),
        lambda content: content["graphs"]["reranker"].pop("sha256"),
        lambda content: content["graphs"]["reranker"].update(file=7),
        lambda content: content["graphs"]["reranker"].update(backend=["native"]),
        lambda content: content.update(depth="50"),
        lambda content: content.update(depth=50.0),
        lambda content: content.update(trained=1),
        lambda content: content.update(weights=None),
        lambda content: content.update(gpu=[]),
        lambda content: content.update(parity={"features": {"map_0": "small"}}),
        lambda content: content.update(parity={"features": {"map_0": float("nan")}}),
        lambda content: content.update(accuracy={"score_drift": float("inf")}),
    ],
)
def test_other_fields_than_the_formats(small, change):
    edit(small, change)
    with pytest.raises(BundleError, match="build the bundle again"):
        Bundle(small)


@pytest.mark.parametrize("field", ["graphs", "parity"])
def test_a_name_of_two_lines_makes_no_error_of_two(small, field):
    edit(small, lambda content: content[field].update({"two\nlines": []}))
    with pytest.raises(BundleError, match="two") as refusal:
        Bundle(small)
    assert "\n" not in str(refusal.value)


def test_deep_nesting(small):
    for content in ("[" * 200_000, '{"a":' * 200_000):
        (small / "manifest.json").write_text(content)
        with pytest.raises(BundleError, match="nested too deeply"):
            Bundle(small)


@pytest.mark.parametrize(
    "name", ["../g", "/etc/passwd", "a/../../g", ".", "..", "", "./g", "a//g", "a\0b", "a\nb", "~/g"]
)
def test_a_file_outside_the_folder(small, name):
    edit(small, lambda content: content["graphs"]["reranker"].update(file=name))
    with pytest.raises(BundleError, match=r"the file of reranker is .* expected a file within the bundle"):
        Bundle(small)


@pytest.mark.parametrize("name", ["absent", "folder", "file", "file/below"])
def test_no_bundle(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle(tmp_path / name)


# --------------------------------------------------------------------------------------------- replacing

TAKE_OVER = """
import os, signal, sys
from pathlib import Path
from cvnet_engine.engine.bundle import take_over

STEPS = ("open", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
left = int(sys.argv[3])

def kill(event, _):
    global left
    if event in STEPS:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
take_over(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def make(folder: Path, small: Path, weights: str) -> Path:
    """A bundle of these weights, its files unlike those of others."""
    shutil.copytree(small, folder)
    for name in GRAPH_NAMES:
        file = folder / Bundle(small).graph(name).name
        file.write_bytes(f"{weights} {name}".encode())
        edit(folder, lambda content, n=name, f=file: content["graphs"][n].update(sha256=sha256(f)))
    edit(folder, lambda content: content.update(weights=weights))
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_that_is_replaced_is_whole_at_every_moment(small, tmp_path_factory):
    seen, step = [], 0
    while True:
        place = tmp_path_factory.mktemp("killed")
        out = make(place / "b", small, "first")
        take_over(out, make(out / "built-1", small, "old"))
        built = make(out / "built-2", small, "new")
        command = [sys.executable, "-c", TAKE_OVER, str(out), str(built), str(step)]
        done = subprocess.run(command, capture_output=True, text=True)
        seen.append(Bundle(out).manifest.weights)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        take_over(out, make(out / "built-3", small, "next"))  # nothing is in the way of the next one
        assert Bundle(out).manifest.weights == "next"
        assert {name.partition("/")[0] for name in files(out)} == {"manifest.json", "built-3"}
        step += 1
    changed = seen.index("new")
    assert seen == ["old"] * changed + ["new"] * (len(seen) - changed)
    assert 1 < changed < step - 5  # kills came before the change and after it
    assert {name.partition("/")[0] for name in files(out)} == {"manifest.json", "built-2"}


def test_other_files_in_a_bundles_folder_stay(small, tmp_path_factory):
    out = make(tmp_path_factory.mktemp("place") / "b", small, "old")
    (out / "notes.txt").write_text("precious")
    take_over(out, make(out / "built-1", small, "new"))
    assert (out / "notes.txt").read_text() == "precious"
    assert {name.partition("/")[0] for name in files(out)} == {"manifest.json", "built-1", "notes.txt"}
