"""The folder that a build is made in becomes the bundle, or leaves no trace."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from cvnet_engine.engine.bundle import Bundle, MapBasis, sha256
from cvnet_engine.engine.errors import BackendError, BundleError, ExportError
from cvnet_engine.engine.graphs import GRAPH_NAMES
from cvnet_engine.export import build
from cvnet_engine.export.build import reduced, unfinished_folder
from cvnet_engine.export.reduction import Reduction
from cvnet_engine.export.selection import Choice


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


def choices(backend: str, refused: dict[str, str]) -> dict[str, Choice]:
    return {"reranker": Choice(backend, Path("reranker.npz"), {}, {}, refused)}


@pytest.mark.parametrize(
    ("refused", "reason"),
    [({}, r"\(openvino is faster here\)"), ({"native": "no compiler"}, r"\(no compiler\)")],
)
def test_maps_are_reduced_for_the_native_pair_scorer_alone(refused, reason):
    with pytest.raises(BackendError, match=reason):
        reduced(choices("openvino", refused), "fp32", "cvnet", Reduction(Path), print, print)


@pytest.fixture
def described(monkeypatch):
    """No photo is looked at."""
    monkeypatch.setattr(build, "calibration_photos", lambda *_: [])
    monkeypatch.setattr(build, "engine_of", lambda *_: contextlib.nullcontext())


@pytest.mark.usefixtures("described")
def test_maps_that_cannot_be_reduced_stay_whole_and_a_note_says_why(monkeypatch):
    def refuse(*_: object) -> MapBasis:
        raise ExportError("scores drift")

    notes: list[str] = []
    monkeypatch.setattr(build, "reduce", refuse)
    assert reduced(choices("native", {}), "fp32", "cvnet", Reduction(Path), print, notes.append) is None
    assert notes == ["maps keep all their dimensions: scores drift"]


@pytest.mark.usefixtures("described")
def test_what_maps_are_reduced_to_is_recorded(monkeypatch):
    basis = MapBasis(64, "ab" * 32, 0.992, 1e-4, 5e-4, 96)
    monkeypatch.setattr(build, "reduce", lambda *_: basis)
    assert reduced(choices("native", {}), "int8", "cvnet", Reduction(Path), print, print) is basis
