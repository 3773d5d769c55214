"""A bundle opens only if it is complete and unchanged, and is replaced in one step."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest

from cvnet_engine.engine.bundle import Bundle, read_manifest, sha256, take_over, write_manifest
from cvnet_engine.engine.errors import BundleError
from cvnet_engine.engine.geometry import GRAPH_NAMES

ABSENT = object()


@pytest.fixture
def small(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose graphs are a few bytes: opening it does not read them."""
    content = json.loads((tiny_bundle / "manifest.json").read_text())
    folder = tmp_path / "small"
    folder.mkdir()
    for name, graph in content["graphs"].items():
        file = folder / graph["file"]
        file.write_bytes(f"graph {name}".encode())
        graph["sha256"] = sha256(file)
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


def edit(folder: Path, field: str, value: object) -> None:
    """Set a field of the manifest, such as `graphs.reranker.file`, or remove it (`ABSENT`)."""
    content = json.loads((folder / "manifest.json").read_text())
    *path, last = field.split(".")
    inner = reduce(dict.__getitem__, path, content)
    if value is ABSENT:
        del inner[last]
    else:
        inner[last] = value
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
def test_an_endless_manifest_is_not_read(small, make, what):
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


@pytest.mark.parametrize("name", GRAPH_NAMES)
@pytest.mark.parametrize("instead", ["nothing", "folder"])
def test_a_missing_graph(small, name, instead):
    file = Bundle(small).graph(name)
    file.unlink()
    if instead == "folder":
        file.mkdir()
    with pytest.raises(BundleError, match=re.escape(f"{file}: missing from the bundle; build it again")):
        Bundle(small)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"null", b"[]", b"{}", b'"text"', b"[" * 200_000, b'{"a":' * 200_000],
    ids=lambda content: f"{len(content)} bytes",
)
def test_a_file_that_is_not_a_manifest(small, content):
    (small / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=re.escape(str(small / "manifest.json"))) as caught:
        Bundle(small)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        *(("format", value, "not a bundle of format 2") for value in (0, 1, "2", 2.0, True, None)),
        *(("colour", value, "unknown field 'colour'") for value in ("blue", None)),
        ("weights_digest", ABSENT, "lacks field 'weights_digest'"),
        ("graphs", ABSENT, "lacks field 'graphs'"),
        ("graphs", [], "graphs is of type list; expected dict"),
        ("graphs", None, "graphs is of type NoneType"),
        ("graphs", {"descriptor": {}, "features": {}, "reranker": {}}, "lacks field"),
        ("graphs.reranker", ABSENT, "graphs are descriptor, features; expected"),
        ("graphs.other", {"file": "a", "sha256": "b", "backend": "native", "precision": "fp32"}, "graphs are .*other"),
        ("graphs.reranker", "reranker.onnx", "reranker is of type str; expected dict"),
        ("graphs.reranker.colour", "blue", "unknown field 'colour'"),
        ("graphs.reranker.sha256", ABSENT, "lacks field 'sha256'"),
        ("graphs.reranker.file", 7, "file is of type int"),
        *(
            ("graphs.reranker.file", name, "the file of reranker is .* expected a file within the bundle")
            for name in ("../g", "/etc/passwd", "a/../../g", ".", "..", "", "./g", "a//g", "a\0b", "a\nb", "~/g")
        ),
        ("graphs.reranker.backend", ["native"], "backend is of type list"),
        (
            "graphs.features.backend",
            "knnxruntime",
            "backend of features is 'knnxruntime'; expected one of",
        ),
        ("descriptor", "fisher", "descriptor is 'fisher'; expected cvnet or superglobal"),
        ("depth", "50", "depth is of type str"),
        ("depth", 50.0, "depth is of type float"),
        ("trained", 1, "trained is of type int"),
        ("weights", None, "weights is of type NoneType"),
        ("gpu", [], "gpu is of type list"),
        ("parity", {"features": {"map_0": "small"}}, r"parity\.features\.map_0 is of type str"),
        ("parity", {"features": {"map_0": float("nan")}}, "expected a finite number"),
        ("accuracy", {"score_drift": float("inf")}, "expected a finite number"),
        ("parity", {"two\nlines": []}, "two"),
    ],
)
def test_a_field_that_does_not_fit_is_named(small, field, value, message):
    edit(small, field, value)
    with pytest.raises(BundleError, match=message) as refusal:
        Bundle(small)
    assert str(refusal.value).endswith(f"build --weights FILE --depth DEPTH --out {small}'")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["absent", "folder", "file", "file/below"])
def test_no_bundle(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle(tmp_path / name)


# --------------------------------------------------------------------------------------------- replacing

STEPS = ("open", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def take_over_killed(out: Path, built: Path, step: int) -> bool:
    """Run `take_over` in a child process that is killed at one of its steps; return False once it completes."""
    child = os.fork()
    if not child:
        steps = iter(range(step))

        def kill(event: str, _: object) -> None:
            if event in STEPS and next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(kill)
            take_over(out, built)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


def make(folder: Path, small: Path, weights: str) -> Path:
    """A bundle with these weights and other files."""
    shutil.copytree(small, folder)
    for name in GRAPH_NAMES:
        file = folder / Bundle(small).graph(name).name
        file.write_bytes(f"{weights} {name}".encode())
        edit(folder, f"graphs.{name}.sha256", sha256(file))
    edit(folder, "weights", weights)
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_replaced_bundle_is_whole_at_every_moment(small, tmp_path):
    seen = []
    for step in range(1000):
        out = make(tmp_path / f"{step}", small, "first")
        take_over(out, make(out / "built-1", small, "old"))
        killed = take_over_killed(out, make(out / "built-2", small, "new"), step)
        seen.append(Bundle(out).manifest.weights)
        if not killed:
            break
        take_over(out, make(out / "built-3", small, "next"))  # a killed one does not disturb the next
        assert Bundle(out).manifest.weights == "next"
        assert {name.partition("/")[0] for name in files(out)} == {"manifest.json", "built-3"}
    changed = seen.index("new")
    assert seen == ["old"] * changed + ["new"] * (len(seen) - changed)
    assert 1 < changed < step - 5  # kills came before the change and after it
    assert {name.partition("/")[0] for name in files(out)} == {"manifest.json", "built-2"}


def test_other_files_in_the_folder_stay(small, tmp_path_factory):
    out = make(tmp_path_factory.mktemp("place") / "b", small, "old")
    (out / "notes.txt").write_text("precious")
    take_over(out, make(out / "built-1", small, "new"))
    assert (out / "notes.txt").read_text() == "precious"
    assert {name.partition("/")[0] for name in files(out)} == {"manifest.json", "built-1", "notes.txt"}
