"""The GPU comparison without a GPU: that it says so, and that its checks and records hold, on CPU methods."""

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.lab import gpu
from cvnet_engine.benchmarks.latency.stages import photo
from cvnet_engine.engine.backends import open_engine
from cvnet_engine.engine.backends import tensorrt as tensorrt_session
from cvnet_engine.engine.errors import BackendError
from cvnet_engine.engine.images import normalise


@pytest.fixture(scope="module")
def images():
    return np.concatenate([normalise(photo(64, 96, seed)) for seed in range(3)])


@pytest.fixture(scope="module")
def reference(seeded_model):
    return gpu.torch_method(seeded_model(50), "fp32", "cpu", compiled=False)


@pytest.fixture(scope="module")
def engines(bundle):
    files = (bundle / f"{name}.onnx" for name in ("features", "reranker"))
    return gpu.engine_method(*(open_engine(file, "onnxruntime") for file in files), "fp32")


def test_no_gpu_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorrt_session, "cuda_devices", list)
    app = gpu.typer.Typer()
    app.command()(gpu.main)
    done = CliRunner().invoke(app, ["--out", str(tmp_path / "gpu")])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: no NVIDIA GPU on this machine")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_only_what_agrees_is_timed(images, reference, engines):
    def wrong_scores(query, keys):
        return engines.score(query, keys) + 0.01

    def missing():
        raise BackendError("not installed")

    openers = {
        gpu.BASELINE: lambda: reference,
        "ONNX Runtime CPU fp32": lambda: engines,
        "wrong fp32": lambda: replace(engines, score=wrong_scores),
        "missing fp32": missing,
    }
    methods, checks, absent = gpu.open_and_check(openers, images, gpu.outcome(reference, images))
    assert list(methods) == list(checks) == [gpu.BASELINE, "ONNX Runtime CPU fp32"]
    assert checks["ONNX Runtime CPU fp32"].drift < 1e-5
    assert absent["wrong fp32"].startswith(
        "scores differ by 1.0e-02 and descriptors' cosine is 1.00000; expected 1e-04"
    )
    assert absent["missing fp32"] == "not installed"

    records = gpu.measure(methods, images, repeats=1)
    assert [r.stage for r in records[::2]] == [
        "features, 1 image",
        "features, 2 images",
        "score, 1 pair",
        "score, 2 pairs",
    ]
    assert {r.size for r in records} == {"64x96"}
    assert all(r.speedup == 1 for r in records if r.backend == "PyTorch eager")
    text = gpu.markdown(gpu.GpuReport("", "", {"cuda_devices": ["a GPU"]}, "", "", checks, absent, records))
    assert text.startswith("# a GPU\n")
    assert "Not timed: missing fp32: not installed" in text


class Uploading:
    """A reranker that counts what it is sent ahead, and what it is fed."""

    def __init__(self):
        self.uploads, self.fed = [], []

    def upload(self, feeds):
        self.uploads.append(list(feeds))

    def run(self, feeds):
        self.fed.append(list(feeds))
        return {"score": np.zeros(1, np.float32)}


@pytest.mark.parametrize("keeps_query", [True, False])
def test_the_query_is_kept_on_the_gpu_or_sent_each_time(keeps_query):
    reranker = Uploading()
    maps = [np.zeros((1, 256, 1, 1), np.float32)] * 3
    gpu.engine_method(None, reranker, "fp16", keeps_query).score(maps, maps)
    names = [[f"{side}_{s}" for s in range(3)] for side in ("query", "key")]
    assert reranker.uploads == ([names[0]] if keeps_query else [])
    assert reranker.fed == [names[0] + names[1]]


def test_every_way_of_running_is_compared():
    """Both libraries, as a bundle runs and with one thing changed at a time."""
    found = gpu.openers(None, {p: {} for p in gpu.MAX_DRIFT}, (64, 96), 2)
    for library in ("TensorRT", "TensorRT for RTX"):
        words = ["with CUDA graphs", "query sent each time", "keys sent in float32"]
        names = [f"{library} {p}" for p in ("fp32", "fp16", "int8")] + [f"{library}, {w} fp16" for w in words]
        assert set(names) <= set(found)


def test_a_plan_is_made_once_for_each_graph(tmp_path, monkeypatch):
    built = []

    def build_plan(graph, plan, *_):
        plan.write_bytes(b"plan")
        built.append((graph.name, plan.name))

    monkeypatch.setattr(gpu, "take_half_keys", lambda _, target: target.write_bytes(b"half"))
    monkeypatch.setattr(gpu, "build_plan", build_plan)
    files = {name: tmp_path / f"{name}_fp16.onnx" for name in ("features", "reranker")}
    for half_keys in (True, False, True):
        gpu.planned(files, (64, 96), 2, gpu.PlanOptions(), half_keys)
    gpu.planned(files, (64, 96), 2, gpu.PlanOptions(targets=("sm89",)), half_keys=False)
    assert built == [
        ("features_fp16.onnx", "features_fp16.plan"),
        ("reranker_fp16_half-keys.onnx", "reranker_fp16_half-keys.plan"),
        ("reranker_fp16.onnx", "reranker_fp16.plan"),
        ("features_fp16.onnx", "features_fp16-sm89.plan"),
        ("reranker_fp16.onnx", "reranker_fp16-sm89.plan"),
    ]
