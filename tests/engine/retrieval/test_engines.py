"""The three engines of a bundle: opening, closing, features and pair scores."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cvnet_engine.engine.bundle import Bundle, sha256
from cvnet_engine.engine.contract import SIGNATURES, Array, Closing, TensorSpec
from cvnet_engine.engine.errors import BackendError, ImageError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.geometry import GRAPH_NAMES, IMAGE_SCALES
from cvnet_engine.engine.retrieval import engines
from cvnet_engine.engine.retrieval.descriptors import DESCRIPTORS
from cvnet_engine.engine.retrieval.engines import Engines, open_graph
from tests.galleries import features

FLOAT, HALF, DOUBLE, INT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64
IMAGE = {"image": (FLOAT, ("batch", 3, "height", "width"))}
DESCRIPTOR = {"descriptor": (FLOAT, ("batch", 2048))}
Tensors = Mapping[str, tuple[int, tuple[int | str, ...]]]


def write_graph(file: Path, inputs: Tensors, outputs: Tensors) -> None:
    """Write a graph with these inputs and outputs; outputs are constant, with free axes of size 1."""
    nodes = []
    for name, (dtype, shape) in outputs.items():
        sizes = [axis if isinstance(axis, int) else 1 for axis in shape]
        value = helper.make_tensor("", dtype, sizes, np.ones(sizes).ravel())
        nodes.append(helper.make_node("Constant", [], [name], value=value))
    infos = [[helper.make_tensor_value_info(n, *spec) for n, spec in side.items()] for side in (inputs, outputs)]
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", *infos), opset_imports=[opset], ir_version=10), file)


@pytest.fixture
def small(bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose files are empty."""
    content = json.loads((bundle / "manifest.json").read_text())
    for name in GRAPH_NAMES:
        (tmp_path / f"{name}.onnx").touch()
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    for name in GRAPH_NAMES:
        update_manifest(tmp_path, name, backend="onnxruntime")
    return tmp_path


def update_manifest(folder: Path, name: str, **facts: str) -> None:
    """Update the manifest's entry of a graph."""
    content = json.loads((folder / "manifest.json").read_text())
    file = f"{name}.onnx"
    content["graphs"][name] |= {"file": file, "sha256": sha256(folder / file)} | facts
    (folder / "manifest.json").write_text(json.dumps(content))


def with_descriptor(folder: Path, inputs: Tensors, outputs: Tensors, backend: str) -> Bundle:
    write_graph(folder / "descriptor.onnx", inputs, outputs)
    update_manifest(folder, "descriptor", backend=backend)
    return Bundle(folder)


@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_every_graph_of_a_built_bundle_opens(bundle, name):
    open_graph(Bundle(bundle), name, threads=1).close()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_with_the_right_signature_opens(small, backend):
    open_graph(with_descriptor(small, IMAGE, DESCRIPTOR, backend), "descriptor", threads=1).close()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (IMAGE, {"vector": DESCRIPTOR["descriptor"]}),
        (IMAGE, DESCRIPTOR | {"map_0": (FLOAT, ("batch", 256, "h", "w"))}),
        (IMAGE, {"descriptor": (FLOAT, ("batch", 1024))}),
        (IMAGE, {"descriptor": (FLOAT, ("batch", "dim"))}),
        (IMAGE, {"descriptor": (FLOAT, (2048,))}),
        (IMAGE, {"descriptor": (FLOAT, ("batch", 2048, 1))}),
        (IMAGE, {"descriptor": (DOUBLE, ("batch", 2048))}),
        (IMAGE, {"descriptor": (INT, ("batch", 2048))}),
        ({"picture": IMAGE["image"]}, DESCRIPTOR),
        ({"image": (FLOAT, ("batch", 1, "height", "width"))}, DESCRIPTOR),
        ({"image": (HALF, ("batch", 3, "height", "width"))}, DESCRIPTOR),
        (IMAGE | {"size": (INT, (2,))}, DESCRIPTOR),
    ],
)
def test_a_graph_with_another_signature_is_refused(small, backend, inputs, outputs):
    another = with_descriptor(small, inputs, outputs, backend)
    with pytest.raises(BackendError, match=r"descriptor of .*; expected .*: build the bundle again") as caught:
        Engines.open(another, threads=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"precision": "fp7"}, "onnxruntime cannot run descriptor in 'fp7'"),
        ({"backend": "native"}, "native cannot run descriptor in 'fp32'"),
    ],
)
def test_an_unsupported_backend_or_precision_is_refused(small, facts, message):
    update_manifest(small, "descriptor", **facts)
    with pytest.raises(BackendError, match=message):
        Engines.open(Bundle(small))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("location", "opens"), [("weights", True), ("../weights", False), ("{}/weights", False)])
def test_weights_outside_the_bundle_are_refused(small, backend, location, opens):
    for folder in (small, small.parent):
        (folder / "weights").write_bytes(np.ones(2048, np.float32).tobytes())
    with_descriptor(small, IMAGE, DESCRIPTOR, backend)
    model = onnx.load(small / "descriptor.onnx")
    del model.graph.node[:]
    weight = onnx.TensorProto(name="descriptor", data_type=FLOAT, dims=[1, 2048], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location.format(small.parent), "offset": "0", "length": "8192"}.items():
        weight.external_data.add(key=key, value=value)
    model.graph.initializer.append(weight)
    (small / "descriptor.onnx").write_bytes(model.SerializeToString())
    update_manifest(small, "descriptor")
    with contextlib.nullcontext() if opens else pytest.raises(BackendError, match="does not open it"):
        open_graph(Bundle(small), "descriptor", threads=1)


@dataclass
class FakeEngine(Closing):
    """An engine with a constant result."""

    result: dict[str, Array]
    inputs: Mapping[str, TensorSpec]

    def run(self, _: Mapping[str, Array]) -> dict[str, Array]:
        return dict(self.result)

    def close(self) -> None: ...


def fake(described: Features, score: Array | None = None) -> Engines:
    descriptor = {"descriptor": described.descriptor[None]}
    maps = {f"map_{scale}": array[None] for scale, array in enumerate(described.maps)}
    (image, _), (pair, _) = SIGNATURES["features"], SIGNATURES["reranker"]
    return Engines(
        FakeEngine(descriptor, image),  # type: ignore[arg-type]
        FakeEngine(descriptor | maps, image),  # type: ignore[arg-type]
        FakeEngine({"score": np.zeros(1) if score is None else score}, pair),  # type: ignore[arg-type]
    )


def altered(where: str, value: float) -> Features:
    """Features with one value replaced, in float32 maps unless `where` is "float16"."""
    described = features(0)
    if where == "descriptor":
        described.descriptor[-1] = value
        return described
    index, dtype = (2, np.float16) if where == "float16" else (int(where[-1]), np.float32)
    maps = list(described.maps)
    maps[index] = maps[index].astype(dtype)
    maps[index].flat[-1] = value
    return Features(described.descriptor, tuple(maps))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["descriptor", "map_0", "map_2", "float16"])
def test_features_that_are_not_finite_are_an_error(where, value, recwarn):
    image = np.zeros((64, 96, 3), np.uint8)
    fake(features(0)).extract(image)
    with pytest.raises(ImageError, match="not finite"):
        fake(altered(where, value)).extract(image)
    with pytest.raises(ImageError, match="not finite"):  # its norm is 0
        fake(Features(np.zeros(2048, np.float32), features(0).maps)).extract(image)
    assert not recwarn


class Sizing(FakeEngine):
    """The descriptor encodes the width of the image."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        described = np.zeros((1, 2048), np.float32)
        described[0, feeds["image"].shape[3]] = 1
        return {**self.result, "descriptor": described}


@pytest.mark.parametrize("kind", ["cvnet", "superglobal"])
@pytest.mark.parametrize("scales", [(1.0,), (0.7071, 1.0), (1.0, 1.4142), IMAGE_SCALES])
def test_a_descriptor_is_computed_at_the_given_scales(scales, kind):
    image, described = np.zeros((240, 320, 3), np.uint8), features(0)
    maps = {f"map_{scale}": array[None] for scale, array in enumerate(described.maps)}
    engines = [Sizing(result, {}) for result in ({}, maps, {})]
    extracted = Engines(*engines, DESCRIPTORS[kind], scales).extract(image)  # type: ignore[arg-type]
    widths = [DESCRIPTORS[kind].scaled((240, 320), scale)[1] for scale in scales]
    assert np.flatnonzero(extracted.descriptor).tolist() == widths
    np.testing.assert_allclose(extracted.descriptor[widths], len(scales) ** -0.5, rtol=1e-6)
    assert [m.shape for m in extracted.maps] == [m.shape for m in described.maps]


@pytest.mark.parametrize("score", [[np.nan], [np.inf], [0.5, 0.5], [], 0.5, [[0.5]]])
def test_scores_that_are_not_one_number_per_candidate_are_an_error(score):
    query = features(0)
    assert fake(query, np.array([0.5])).score(query, [query]) == [0.5]
    with pytest.raises(BackendError, match="pair scores are not one finite number"):
        fake(query, np.array(score)).score(query, [query])


class Spy(Closing):
    """An engine that adds its name to a list when it is closed, and may raise then."""

    inputs = outputs = MappingProxyType[str, TensorSpec]({})

    def __init__(self, closed: list[str], name: str, fails: bool = False) -> None:
        self._closed, self._name, self._fails = closed, name, fails

    def close(self) -> None:
        self._closed.append(self._name)
        if self._fails:
            raise BackendError("no")


def test_opening_that_fails_closes_the_opened_engines(bundle, monkeypatch):
    closed = []

    def open_graph(_bundle, name, _threads):
        if name == "reranker":
            raise BackendError("no such device")
        return Spy(closed, name)

    monkeypatch.setattr(engines, "open_graph", open_graph)
    with pytest.raises(BackendError, match="no such device"):
        Engines.open(Bundle(bundle))
    assert sorted(closed) == ["descriptor", "features"]


def test_streams_of_the_image_graphs_share_the_threads(bundle, monkeypatch):
    asked, closed = [], []

    def open_graph(_bundle, name, threads):
        asked.append((name, threads))
        return Spy(closed, name)

    monkeypatch.setattr(engines, "open_graph", open_graph)
    monkeypatch.setattr(engines, "usable_threads", lambda threads: threads or 16)
    with Engines.open(Bundle(bundle), 7, streams=3) as opened:
        assert opened.streams == 3
    assert asked == [*[("descriptor", 2)] * 3, *[("features", 2)] * 3, ("reranker", 7)]
    assert sorted(closed) == sorted(name for name, _ in asked)


def test_every_engine_is_closed_even_if_one_raises():
    closed = []
    with pytest.raises(BackendError), Engines(*(Spy(closed, name, name == "features") for name in GRAPH_NAMES)):
        pass
    assert sorted(closed) == sorted(GRAPH_NAMES)


def test_a_graph_opens_in_the_precision_of_its_file(bundle, monkeypatch):
    """A bundle for int8 on TensorRT has an fp16 reranker, and its manifest says so."""
    opened = Bundle(bundle)
    features = replace(opened.manifest.graphs["features"], backend="openvino", precision="int8")
    opened.manifest.graphs["features"] = features
    asked = []
    monkeypatch.setattr(engines, "open_engine", lambda _file, *how: asked.append(how) or Spy([], ""))
    monkeypatch.setattr(engines, "require_signature", lambda *_: None)
    open_graph(opened, "features", threads=3)
    open_graph(opened, "descriptor", threads=3)
    assert asked == [("openvino", "int8", 3), ("onnxruntime", "fp32", 3)]


class Reranker(Closing):
    """A reranker that counts its runs."""

    inputs: ClassVar = {
        f"{side}_{scale}": TensorSpec("floating", ()) for side in ("query", "key") for scale in range(3)
    }
    runs = 0

    def run(self, feeds):
        self.runs += 1
        return {"score": np.arange(len(feeds["key_0"]), dtype=np.float32)}


class Collection:
    """Even and odd rows have maps of different sizes."""

    def map_size(self, row):
        return self.features(row).map_size

    def features(self, row):
        return features(row, ((2, 3), (3, 4), (4, 6 + row % 2)))


def test_a_batch_is_scored_when_it_is_requested():
    """Rows with maps of one size form batches of at most four."""
    reranker = Reranker()
    batches = Engines(None, None, reranker).score_batches(features(99), Collection(), range(10))
    rows, scores = next(batches)
    assert (rows, scores.tolist(), reranker.runs) == ([0, 2, 4, 6], [0, 1, 2, 3], 1)
    assert next(batches)[0] == [8]
    batches.close()
    assert reranker.runs == 2


def test_maps_are_uploaded_before_they_are_scored():
    """The query is uploaded once, each batch while the one before is scored; runs get the same arrays."""

    class Uploading(Reranker):
        def __init__(self):
            self.sent, self.fed = [], []

        def upload(self, feeds):
            self.sent += feeds.values()

        def run(self, feeds):
            self.fed += [array for array in feeds.values() if not any(array is fed for fed in self.fed)]
            return super().run(feeds)

    reranker = Uploading()
    engines = Engines(None, None, reranker)
    engines.score_rows(features(99), Collection(), range(10))
    assert reranker.runs == 4
    assert len(reranker.sent) == 3 * (1 + 4)  # maps of the query and of each batch
    assert sorted(map(id, reranker.sent)) == sorted(map(id, reranker.fed))
