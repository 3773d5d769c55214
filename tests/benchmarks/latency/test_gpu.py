"""The GPU comparison without a GPU: that it says so, and that its checks and records hold, on CPU methods."""

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.latency import gpu
from benchmarks.latency.photos import photo
from engine.backends import open_engine
from engine.backends import tensorrt as tensorrt_session
from engine.errors import BackendError
from engine.images import normalise


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
    assert checks["ONNX Runtime CPU fp32"]["drift"] < 1e-5
    assert absent["wrong fp32"].startswith(
        "scores differ by 1.0e-02 and descriptors' cosine is 1.00000; expected 1e-04"
    )
    assert absent["missing fp32"] == "not installed"

    records = gpu.measure(methods, images, repeats=1)
    assert [r["stage"] for r in records[::2]] == [
        "features, 1 image",
        "features, 2 images",
        "score, 1 pair",
        "score, 2 pairs",
    ]
    assert {r["size"] for r in records} == {"64x96"}
    assert all(r["speedup"] == 1 for r in records if r["backend"] == "PyTorch eager")
    report = {"machine": {"cuda_devices": ["a GPU"]}, "date": "", "command": "", "torch": "", "model": ""}
    text = gpu.markdown(report | {"records": records, "checks": checks, "absent": absent})
    assert text.startswith("# a GPU\n")
    assert "Not timed: missing fp32: not installed" in text
