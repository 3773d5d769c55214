"""The choice of `--backend auto` on several machines, its reason, and the useful extras."""

from types import SimpleNamespace

import pytest

from cvnet_engine.engine import backends, machine
from cvnet_engine.engine.backends import auto_backends, auto_reason, missing_extras
from cvnet_engine.engine.backends.native import library

GPU, RTX = "NVIDIA H100", "NVIDIA L4"
CAPABILITIES = {GPU: "9.0", RTX: "8.9"}  # TensorRT for RTX does not support the first
TENSORRTS = ["tensorrt", "tensorrt_rtx", "onnxruntime"]
CUDA = "CUDAExecutionProvider"


@pytest.fixture
def on(monkeypatch):
    """Simulate a machine: its GPUs, modules, ONNX Runtime providers and C compiler."""

    def pretend(gpus=(), modules=("onnxruntime",), providers=("CPUExecutionProvider",), compiler=True):
        monkeypatch.setattr(machine, "cuda_devices", lambda: list(gpus))
        monkeypatch.setattr(machine, "compute_capability", lambda: CAPABILITIES[gpus[0]] if gpus else None)
        monkeypatch.setattr(machine, "onnxruntime_providers", lambda: list(providers))
        monkeypatch.setattr(library, "is_here", lambda: compiler)
        monkeypatch.setattr(
            backends.importlib.util, "find_spec", lambda name: SimpleNamespace() if name in modules else None
        )

    return pretend


@pytest.mark.parametrize(
    ("here", "features", "reranker", "reason"),
    [
        ({}, ["onnxruntime"], ["native", "onnxruntime"], "no NVIDIA GPU"),
        ({"compiler": False, "modules": ["openvino"]}, ["openvino"], ["openvino"], "no NVIDIA GPU"),
        ({"modules": []}, [], ["native"], "no NVIDIA GPU"),
        # TensorRT is not used without a GPU
        ({"modules": ["tensorrt", "onnxruntime"]}, ["onnxruntime"], ["native", "onnxruntime"], "no NVIDIA GPU"),
        (
            {"gpus": [GPU], "modules": ["tensorrt", "onnxruntime"], "providers": [CUDA]},
            ["tensorrt"],
            ["tensorrt"],
            "NVIDIA H100 and TensorRT are present",
        ),
        (
            {"gpus": [GPU], "providers": [CUDA]},
            ["onnxruntime-cuda"],
            ["onnxruntime-cuda"],
            "no TensorRT: install the 'tensorrt' extra",
        ),
        ({"gpus": [RTX], "modules": TENSORRTS}, ["tensorrt"], ["tensorrt"], "NVIDIA L4 and TensorRT are present"),
        (
            {"gpus": [RTX], "modules": TENSORRTS[1:], "providers": [CUDA]},
            ["tensorrt-rtx"],
            ["tensorrt-rtx"],
            "NVIDIA L4 and TensorRT for RTX are present",
        ),
        (
            {"gpus": [GPU], "modules": TENSORRTS[1:], "providers": [CUDA]},
            ["onnxruntime-cuda"],
            ["onnxruntime-cuda"],
            "no TensorRT: install the 'tensorrt' extra",
        ),
        ({"gpus": [RTX]}, ["onnxruntime"], ["native", "onnxruntime"], "install the 'gpu' or the 'tensorrt-rtx' extra"),
        ({"gpus": [GPU]}, ["onnxruntime"], ["native", "onnxruntime"], "install the 'gpu' or the 'tensorrt' extra"),
    ],
)
def test_auto_prefers_a_gpu_and_gives_the_reason(on, here, features, reranker, reason):
    on(**here)
    assert auto_backends("features") == features
    assert auto_backends("reranker") == reranker
    assert reason in auto_reason()


@pytest.mark.parametrize(
    ("gpus", "missing"),
    [([], ["cpu", "openvino"]), ([GPU], ["tensorrt", "gpu"]), ([RTX], ["tensorrt-rtx", "gpu"])],
)
def test_missing_extras_are_those_useful_here(on, monkeypatch, gpus, missing):
    on(gpus=gpus)
    absent = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt-cu13", "tensorrt-rtx-cu13")
    monkeypatch.setattr(machine, "installed_version", lambda name: None if name in absent else "1.0")
    assert missing_extras() == missing
