"""ONNX Runtime: errors of one line, and no fallback from CUDA to the CPU."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cvnet_engine.engine.backends import onnxruntime as onnxruntime_backend
from cvnet_engine.engine.backends import open_engine
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.contract import Engine
from cvnet_engine.engine.errors import BackendError
from cvnet_engine.engine.machine import onnxruntime_providers


@pytest.fixture(scope="module")
def reranker(bundle: Path) -> Engine:
    return open_engine(Bundle(bundle).graph("reranker"), "onnxruntime", threads=1)


def test_an_engine_has_inputs_and_runs(reranker):
    assert list(reranker.inputs) == [f"{side}_{scale}" for side in ("query", "key") for scale in range(3)]
    feeds = {name: np.full((1, 256, 4, 4), 1 / 16, np.float32) for name in reranker.inputs}
    scores = reranker.run(feeds)["score"]
    assert (scores.shape, scores.dtype) == ((1,), np.float32)
    assert 0 <= scores[0] <= 1


def test_an_engine_refuses_bad_feeds(reranker):
    with pytest.raises(BackendError, match="expected"):
        reranker.run({"query_0": np.zeros((1, 256, 4, 4), np.float32)})


def test_an_unknown_backend_is_refused(tmp_path):
    with pytest.raises(BackendError, match=r"'abacus' is unknown; expected one of .*onnxruntime"):
        open_engine(tmp_path / "graph.onnx", "abacus")


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime_providers(), reason="CUDA is here")
def test_missing_cuda_is_an_error_and_not_the_cpu(bundle):
    with pytest.raises(BackendError, match=r"no CUDA provider .*\[gpu\].* --backend onnxruntime"):
        open_engine(Bundle(bundle).graph("reranker"), "onnxruntime-cuda")


class FakeOnnxRuntime:
    """ONNX Runtime with a CUDA provider, which a session may leave as a whole or for some nodes."""

    def __init__(self, providers: list[str], strays: list[str]) -> None:
        node = SimpleNamespace
        stray_nodes = [node(op_type=op_type) for op_type in strays]
        parts = [
            SimpleNamespace(ep_name="CUDAExecutionProvider", get_nodes=lambda: [node(op_type="Conv")]),
            SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda: stray_nodes),
        ]
        self.InferenceSession = lambda *_, **__: SimpleNamespace(
            get_providers=lambda: providers,
            get_provider_graph_assignment_info=lambda: parts,
            get_inputs=list,
            get_outputs=list,
        )
        self.SessionOptions = lambda: SimpleNamespace(add_session_config_entry=lambda *_: None)
        self.preloaded = 0

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def preload_dlls(self) -> None:
        sys.stdout.write("Failed to load libcudnn.so.9\n")  # as it does
        self.preloaded += 1


@pytest.mark.parametrize(
    ("providers", "strays", "message"),
    [
        (["CPUExecutionProvider"], [], "CUDA was requested and ONNX Runtime chose CPUExecutionProvider"),
        (["CUDAExecutionProvider"], ["Shape", "GridSample"], "GridSample would run on the CPU"),
        (["CUDAExecutionProvider"], ["Shape", "Gather"], None),
    ],
)
def test_a_session_that_leaves_cuda_is_an_error(tmp_path, monkeypatch, capsys, providers, strays, message):
    ort = FakeOnnxRuntime(providers, strays)
    monkeypatch.setattr(onnxruntime_backend, "import_onnxruntime", lambda: ort)
    with contextlib.nullcontext() if message is None else pytest.raises(BackendError, match=message):
        open_engine(tmp_path / "graph.onnx", "onnxruntime-cuda")
    assert ort.preloaded == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"no graph", bytes(1000), None])
def test_a_corrupt_graph_is_an_error_of_one_line(bundle, tmp_path, content, capfd):
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(Bundle(bundle).graph("reranker").read_bytes()[:100_000] if content is None else content)
    with pytest.raises(BackendError, match="does not open it") as caught:
        open_engine(graph, "onnxruntime")
    assert str(graph) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_run_that_fails_is_an_error_of_one_line(reranker, capfd):
    feeds = {name: np.zeros((1, 256, 0, 0), np.float32) for name in reranker.inputs}
    with pytest.raises(BackendError, match="ONNX Runtime stopped") as caught:
        reranker.run(feeds)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
