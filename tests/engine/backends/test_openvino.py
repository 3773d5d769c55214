"""OpenVINO: results equal ONNX Runtime's, in the requested precision or not at all."""

import numpy as np
import pytest

from cvnet_engine.engine.backends import open_engine
from cvnet_engine.engine.backends.openvino import OpenVinoEngine
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import BackendError
from cvnet_engine.engine.machine import cpu_features
from tests.golden_inputs import golden_image
from tests.hostile.tiny import write_bundle

pytest.importorskip("openvino", reason="the 'openvino' extra is not installed")


@pytest.fixture(scope="module")
def pair():
    """Unit maps of two images of 7x9 positions."""
    rng = np.random.default_rng(0)
    sizes = ((4, 4), (5, 6), (7, 9))
    maps = {
        f"{side}_{s}": rng.standard_normal((1, 256, *sizes[s]), np.float32)
        for side in ("query", "key")
        for s in range(3)
    }
    return {name: m / np.linalg.norm(m, axis=1, keepdims=True) for name, m in maps.items()}


def test_the_reranker_agrees_with_onnxruntime(bundle, pair):
    graph = Bundle(bundle).graph("reranker")
    got, want = (open_engine(graph, backend).run(pair) for backend in ("openvino", "onnxruntime"))
    np.testing.assert_allclose(got["logits"], want["logits"], atol=1e-5)


def test_features_agree_with_onnxruntime(bundle):
    graph, feeds = Bundle(bundle).graph("features"), {"image": golden_image(97, 131)}
    got, want = (open_engine(graph, backend).run(feeds) for backend in ("openvino", "onnxruntime"))
    assert list(got) == list(want)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=1e-5)


@pytest.mark.skipif("avx512_bf16" not in cpu_features(), reason="this processor has no bf16")
def test_bf16_differs_from_fp32(bundle, pair):
    graph = Bundle(bundle).graph("reranker")
    exact, rounded = (open_engine(graph, "openvino", precision).run(pair)["logits"] for precision in ("fp32", "bf16"))
    assert 1e-6 < np.abs(exact - rounded).max() < 1e-1


def test_outputs_do_not_change_in_the_next_run(bundle, pair):
    engine = open_engine(Bundle(bundle).graph("reranker"), "openvino")
    first = engine.run(pair)["logits"]
    kept = first.copy()
    engine.run(pair | {"key_2": -pair["key_2"]})
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(("bytes_kept", "cause"), [(0, "Unable to read the model"), (100_000, "Model can't be parsed")])
def test_a_corrupt_graph_is_an_error_of_one_line(bundle, tmp_path, bytes_kept, cause):
    (tmp_path / "graph.onnx").write_bytes(Bundle(bundle).graph("features").read_bytes()[:bytes_kept])
    with pytest.raises(BackendError, match=rf"OpenVINO does not open it \(.*{cause}") as caught:
        open_engine(tmp_path / "graph.onnx", "openvino")
    assert "\n" not in str(caught.value)
    assert "Exception from" not in str(caught.value)


def test_a_run_that_fails_is_an_error_of_one_line(bundle, pair):
    engine = open_engine(Bundle(bundle).graph("reranker"), "openvino")
    with pytest.raises(BackendError, match="OpenVINO stopped") as caught:
        engine.run(pair | {"key_2": np.zeros((1, 256, 0, 0), np.float32)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("threads", "pinned"), [(1, False), (4, True)])
def test_threads_are_pinned_only_if_all_cpus_are_used(tmp_path, monkeypatch, threads, pinned):
    """Pinned engines of one thread each would all run on the first core."""
    monkeypatch.setattr("cvnet_engine.engine.backends.openvino.usable_cpus", lambda: 4)
    graph = write_bundle(tmp_path / "tiny") / "descriptor.onnx"
    with OpenVinoEngine(graph, "fp32", threads) as engine:
        assert engine._request.get_compiled_model().get_property("ENABLE_CPU_PINNING") is pinned
