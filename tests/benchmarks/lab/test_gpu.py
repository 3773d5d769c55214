"""The comparison on a GPU, run on the CPU with CPU engines in place of TensorRT's."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.lab import gpu
from cvnet_engine.benchmarks.latency import bench, limits, stages
from cvnet_engine.benchmarks.methods.method import REFERENCE, open_bundle
from cvnet_engine.benchmarks.runs import Settings
from cvnet_engine.engine.backends import open_engine
from cvnet_engine.engine.backends import tensorrt as tensorrt_session
from cvnet_engine.engine.errors import BackendError
from tests.hostile.tiny import write_bundle


def test_without_a_gpu_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_session, "cuda_devices", list)
    with pytest.raises(BackendError, match=r"^no NVIDIA GPU on this machine"):
        gpu.main([tmp_path], tmp_path / "gpu")
    assert not list(tmp_path.iterdir())


def test_further_methods_are_compared_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, opened = write_bundle(tmp_path / "tiny"), []

    def open_with(file, cuda_graphs):
        opened.append(cuda_graphs)
        return open_engine(file, "onnxruntime")

    reference, itself = replace(open_bundle(tiny, 1), name=REFERENCE, backend="torch-cpu"), open_bundle(tiny, 1)
    monkeypatch.setattr(gpu, "ENGINES", {"onnxruntime": open_with})
    monkeypatch.setattr(bench, "open_all", lambda *_: ({REFERENCE: reference, "tiny": itself}, {}))
    monkeypatch.setattr(bench, "keeping_reference", lambda *_: contextlib.nullcontext((dict, dict)))
    monkeypatch.setattr(stages, "published_pair", lambda *_: None)
    monkeypatch.setattr(limits, "measure", lambda _: limits.Limits({"fp32": 1.0}, 1.0))
    report = gpu.run(Settings((tiny,), ((64, 96),), (50,), (2,), 2, compiled=False, budget_s=0), "a command")
    names = ["tiny", "tiny, CUDA graphs"]
    assert opened == [True] * 3
    assert report.agreement["96x64"].keys() == {f"{REFERENCE} fp16", *names}
    assert [r.method for r in report.records if r.stage == "rerank" and not r.projected] == names
    assert not any(record.floor_ms for record in report.records)
