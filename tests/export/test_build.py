"""The folder that a build is made in becomes the bundle, or leaves no trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cvnet_engine.engine.bundle import Bundle, sha256
from cvnet_engine.engine.errors import BundleError
from cvnet_engine.engine.geometry import GRAPH_NAMES
from cvnet_engine.export.build import unfinished_folder


def fill(folder: Path, manifest: Path, weights: str) -> None:
    """A bundle of a few bytes."""
    content = json.loads(manifest.read_text()) | {"weights": weights}
    for name in GRAPH_NAMES:
        (folder / f"{name}.onnx").write_text(weights)
        content["graphs"][name] |= {"file": f"{name}.onnx", "sha256": sha256(folder / f"{name}.onnx")}
    (folder / "manifest.json").write_text(json.dumps(content))


def test_a_new_bundle_and_one_in_its_place(bundle, tmp_path):
    for weights in ("first", "second", "third"):
        with unfinished_folder(tmp_path / "b") as folder:
            fill(folder, bundle / "manifest.json", weights)
        assert Bundle(tmp_path / "b").manifest.weights == weights
        assert {path.name for path in tmp_path.iterdir()} == {"b"}
        assert len(list((tmp_path / "b").rglob("*.onnx"))) == len(GRAPH_NAMES)


@pytest.mark.parametrize("replacing", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), BundleError("no")])
def test_a_build_that_ends_early_leaves_what_was_there(bundle, tmp_path, replacing, error):
    if replacing:
        with unfinished_folder(tmp_path / "b") as folder:
            fill(folder, bundle / "manifest.json", "first")
    before = sorted(tmp_path.rglob("*"))

    def build_until_then() -> None:
        with unfinished_folder(tmp_path / "b") as folder:
            (folder / "features.onnx").touch()
            raise error

    with pytest.raises((KeyboardInterrupt, BundleError)):
        build_until_then()
    assert sorted(tmp_path.rglob("*")) == before


def test_two_builds_do_not_replace_one_bundle_at_once(bundle, tmp_path):
    with unfinished_folder(tmp_path / "b") as folder:
        fill(folder, bundle / "manifest.json", "first")
    with unfinished_folder(tmp_path / "b") as folder:
        fill(folder, bundle / "manifest.json", "second")
        with pytest.raises(BundleError, match="another build is replacing it"), unfinished_folder(tmp_path / "b"):
            pass
    assert Bundle(tmp_path / "b").manifest.weights == "second"
