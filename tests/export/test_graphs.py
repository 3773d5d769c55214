"""Exported graphs in ONNX Runtime against outputs of the published code."""

import numpy as np
import onnx
import pytest

from cvnet_engine.engine.backends import open_engine
from cvnet_engine.export.graphs import DESCRIPTOR, FEATURES, GRAPHS
from cvnet_engine.export.onnx_export import OPSET, cut, export
from tests.golden_inputs import IMAGE_SIZES, PAIR_SIZES, golden_image, golden_pair


@pytest.fixture(scope="session")
def unit_maps(seeded_model):
    """A feature map (1, 1024, h, w) -> its three unit maps, by PyTorch."""
    import torch

    from cvnet_engine.export.reranker import UnitMaps

    module = UnitMaps(seeded_model(50).reranker)

    def compute(feature_map):
        with torch.inference_mode():
            return [m.numpy() for m in module(torch.from_numpy(feature_map))]

    return compute


@pytest.fixture(scope="session", params=[50, pytest.param(101, marks=pytest.mark.slow)])
def image_engines(request, bundle, seeded_model, tmp_path_factory):
    """(depth, descriptor engine, features engine); ResNet-50's are those of the bundle."""
    depth, folder = request.param, bundle
    if depth == 101:
        folder = tmp_path_factory.mktemp("r101")
        export(FEATURES, seeded_model(101), folder / "features.onnx")
        cut(folder / "features.onnx", DESCRIPTOR, folder / "descriptor.onnx")
    return depth, *(open_engine(folder / f"{name}.onnx", "onnxruntime") for name in ("descriptor", "features"))


@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_descriptors(image_engines, size, golden):
    depth, *engines = image_engines
    want = golden(depth)["descriptor_{}x{}".format(*size)]
    for engine in engines:
        np.testing.assert_allclose(engine.run({"image": golden_image(*size)})["descriptor"][0], want, atol=1e-5)


@pytest.mark.parametrize("key_size", [(192, 144), (160, 224)])
def test_images_to_score(image_engines, bundle, key_size, golden):
    """The published score of an image pair, from the three graphs alone."""
    depth, _, features = image_engines
    query, key = (features.run({"image": golden_image(*size)}) for size in ((160, 224), key_size))
    feeds = {f"query_{s}": query[f"map_{s}"] for s in range(3)} | {f"key_{s}": key[f"map_{s}"] for s in range(3)}
    score = open_engine(bundle / "reranker.onnx", "onnxruntime").run(feeds)["score"]
    np.testing.assert_allclose(score, golden(depth)["image_score_160x224_{}x{}".format(*key_size)], atol=1e-5)


@pytest.mark.parametrize("depth", [50, 101])
@pytest.mark.parametrize("size", PAIR_SIZES)
def test_pair_scores(bundle, unit_maps, size, depth, golden):
    """One reranker serves both depths: their seeded rerankers are the same."""
    query, key = map(unit_maps, golden_pair(*size))
    feeds = {f"query_{s}": m for s, m in enumerate(query)} | {f"key_{s}": m for s, m in enumerate(key)}
    outputs = open_engine(bundle / "reranker.onnx", "onnxruntime").run(feeds)
    tag = "{}x{}_{}x{}".format(*size)
    np.testing.assert_allclose(outputs["logits"][0], golden(depth)[f"logits_{tag}"], atol=1e-4)
    np.testing.assert_allclose(outputs["score"][0], golden(depth)[f"score_{tag}"], atol=1e-5)


def test_batch_equals_one_by_one(bundle, unit_maps):
    engine = open_engine(bundle / "reranker.onnx", "onnxruntime")
    query, key = golden_pair(7, 9, 9, 9)
    keys = [unit_maps(key), unit_maps(key[..., ::-1].copy()), unit_maps(-key)]
    query_feeds = {f"query_{s}": m for s, m in enumerate(unit_maps(query))}

    def score(members):
        return engine.run(query_feeds | {f"key_{s}": np.concatenate([m[s] for m in members]) for s in range(3)})[
            "score"
        ]

    one_by_one = np.concatenate([score([member]) for member in keys])
    assert np.ptp(one_by_one) > 1e-3  # three different keys, so that a mix-up would show
    np.testing.assert_allclose(score(keys), one_by_one, atol=1e-6)


def test_zero_map_is_finite(bundle, unit_maps):
    """A constant image can leave feature vectors at zero; their cosine is 0, not 0/0."""
    query = unit_maps(np.zeros((1, 1024, 8, 8), np.float32))
    assert all(not m.any() for m in query)
    feeds = {f"{side}_{s}": m for side in ("query", "key") for s, m in enumerate(query)}
    assert np.isfinite(open_engine(bundle / "reranker.onnx", "onnxruntime").run(feeds)["score"]).all()


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda g: g.name)
def test_graph_is_as_documented(bundle, graph):
    model = onnx.load(bundle / f"{graph.name}.onnx")
    onnx.checker.check_model(model)
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", OPSET)}
    shapes = {
        i.name: tuple(d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim) for i in model.graph.input
    }
    assert shapes == graph.inputs
    assert tuple(o.name for o in model.graph.output) == graph.outputs
