"""Each backend and its precision are announced before any work."""

from types import SimpleNamespace

import pytest

from cvnet_engine.engine.backends import BACKENDS, PRECISIONS
from cvnet_engine.engine.errors import BackendError
from cvnet_engine.engine.geometry import GRAPH_NAMES
from cvnet_engine.export import artifacts
from cvnet_engine.export.artifacts import Artifacts
from cvnet_engine.export.build import BuildSettings, build, candidate_backends, resolved_targets, why_not_run

CPU = ("onnxruntime", "openvino", "native")


@pytest.mark.parametrize("graph", ["descriptor", "features", "reranker"])
def test_every_precision_has_its_backends(graph):
    able = {
        precision: {name for name, b in BACKENDS.items() if b.supports(graph, precision)} for precision in PRECISIONS
    }
    native = {"native"} if graph == "reranker" else set()
    tensorrts = {"tensorrt", "tensorrt-rtx"}
    assert able == {
        "fp32": {"onnxruntime", "openvino", "onnxruntime-cuda"} | tensorrts | native,
        "bf16": {"openvino"} | native,
        "fp16": {"onnxruntime-cuda"} | tensorrts,
        "int8": {"openvino"} | tensorrts | native,
    }


@pytest.mark.parametrize(
    ("backend", "precision", "message"),
    [
        ("auto", "fp16", r"cannot run features in fp16; expected tensorrt or tensorrt-rtx or onnxruntime-cuda"),
        ("onnxruntime", "int8", r"onnxruntime cannot run features in int8; expected openvino or tensorrt"),
        ("tensorrt", "bf16", r"tensorrt cannot run features in bf16; expected openvino"),
        ("native", "fp32", "'native' is unknown"),
    ],
)
def test_what_does_not_go_together_is_refused(monkeypatch, backend, precision, message):
    monkeypatch.setattr(
        "cvnet_engine.export.build.auto_backends", lambda graph: list(CPU[: 3 if graph == "reranker" else 2])
    )
    with pytest.raises(BackendError, match=message):
        candidate_backends("features", backend, precision)


def test_int8_asks_for_photos_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("cvnet_engine.cvnet.checkpoint.load", None)
    with pytest.raises(BackendError, match="expected --calibration DIR"):
        build(BuildSettings("seeded:0", 50, "openvino", "int8"), tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("backend", "message"),
    [("tensorrt", "no NVIDIA GPU|TensorRT cannot be imported"), ("onnxruntime-cuda", "no CUDA provider")],
)
def test_a_gpu_that_is_not_there_is_an_error_and_never_the_cpu(tmp_path, monkeypatch, backend, message):
    """The stages before the GPU is met are left out: they take half a minute and have tests of their own."""
    monkeypatch.setattr("cvnet_engine.engine.machine.cuda_devices", list)
    monkeypatch.setattr("cvnet_engine.export.parity.cases", lambda *_: {g: [] for g in GRAPH_NAMES})
    monkeypatch.setattr("cvnet_engine.export.artifacts.export", lambda _graph, _model, file: file.write_bytes(b"graph"))
    monkeypatch.setattr("cvnet_engine.export.artifacts.cut", lambda _whole, _graph, file: file.write_bytes(b"graph"))
    with pytest.raises(BackendError, match=message):
        build(BuildSettings("seeded:0", 50, backend, sizes=[(64, 64)]), tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_targets_are_for_one_backend():
    with pytest.raises(BackendError, match=r"^--targets sm89: only for --backend tensorrt-rtx; leave it out"):
        resolved_targets(["openvino", "native"], ["sm89"])
    assert resolved_targets(["openvino"], []) == ()
    assert resolved_targets(["tensorrt-rtx"], ["sm89"]) == ("sm89",)


def test_what_is_compiled_ahead_of_time_is_not_run_without_a_gpu(monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    monkeypatch.setattr("cvnet_engine.engine.backends.tensorrt.cuda_devices", list)
    assert why_not_run(["tensorrt-rtx"], ["sm89"]).startswith("no NVIDIA GPU")
    assert why_not_run(["openvino", "native"], []) is None


@pytest.mark.parametrize(
    ("precision", "file"), [("fp32", "reranker.fp32.half-keys"), ("fp16", "reranker.fp16.half-keys")]
)
def test_what_is_compiled_takes_keys_in_float16(tmp_path, monkeypatch, precision, file):
    monkeypatch.setattr(artifacts, "export", lambda _graph, _model, file: file.write_bytes(b"graph"))
    monkeypatch.setattr(artifacts, "to_fp16", lambda _, file: file.write_bytes(b"half"))
    monkeypatch.setattr(
        artifacts, "take_half_keys", lambda source, file: file.write_bytes(source.read_bytes() + b" keys")
    )
    made = Artifacts(tmp_path, None, precision, [], [], (), lambda _: None)
    assert made.to_compile("reranker", precision) == tmp_path / f"{file}.onnx"
    assert (tmp_path / f"{file}.onnx").read_bytes() == {"fp32": b"graph keys", "fp16": b"half keys"}[precision]
    assert made.to_compile("features", precision) == made.typed("features", precision)


def test_progress_forecasts_from_the_plans_before(tmp_path, monkeypatch):
    """By operators and profiles: half as many in twice as many take as long."""
    clock, said = [0.0], []

    def build_plan(_graph, plan, *_arguments):
        progress = _arguments[-1]
        clock[0] += 10
        progress("Building", 0.5)
        clock[0] += 10
        plan.write_bytes(b"plan")

    monkeypatch.setattr(artifacts, "operators", lambda graph: {"features": 200, "descriptor": 100}[graph.stem])
    monkeypatch.setattr(artifacts.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr("cvnet_engine.export.tensorrt_plan.build_plan", build_plan)
    monkeypatch.setattr(artifacts, "export", lambda _graph, _model, file: file.write_bytes(b"graph"))
    monkeypatch.setattr(artifacts, "cut", lambda _whole, _graph, file: file.write_bytes(b"graph"))
    made = Artifacts(tmp_path, SimpleNamespace(descriptor="cvnet"), "fp32", [], [(64, 96)], (), said.append)
    for graph in ("features", "descriptor"):
        made.file(graph, "tensorrt")
    assert [line for line in said if "Building" in line] == [
        "features.plan: Building 50%, 10 s",
        "descriptor.plan: Building 50%, 10 s (forecast: 20 s in all)",
    ]
