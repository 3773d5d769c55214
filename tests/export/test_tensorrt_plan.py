"""Plans without a GPU: profiles, the limit of 2^31 elements, and the build on a stand-in for TensorRT.

The real builder is in test_tensorrt_rtx_plan.py; the stand-in has what that one lacks: timings, a GPU to inspect on.
"""

import json
from unittest.mock import MagicMock

import pytest

from cvnet_engine.engine.backends import tensorrt as tensorrt_session
from cvnet_engine.engine.errors import BackendError, ExportError
from cvnet_engine.export import tensorrt_plan
from cvnet_engine.export.graphs import GRAPHS
from cvnet_engine.export.tensorrt_plan import (
    PlanOptions,
    SizeRange,
    build_plan,
    check_batch,
    largest_batch,
    largest_tensor,
    profiles,
    size_ranges,
)

LANDSCAPE = SizeRange((683, 1024), (768, 1024), (768, 1024))
PORTRAIT = SizeRange((1024, 600), (1024, 768), (1024, 768))


def test_size_ranges():
    sizes = [(768, 1024)] * 3 + [(683, 1024), (1024, 768), (1024, 768), (1024, 600)]
    assert size_ranges(sizes) == [LANDSCAPE, PORTRAIT]
    assert size_ranges([(512, 512)]) == [SizeRange((512, 512), (512, 512), (512, 512))]


def test_profiles():
    ranges = [LANDSCAPE, PORTRAIT]
    assert profiles("features", ranges, 2) == [
        {"image": ((1, 3, 683, 1024), (2, 3, 768, 1024), (2, 3, 768, 1024))},
        {"image": ((1, 3, 1024, 600), (2, 3, 1024, 768), (2, 3, 1024, 768))},
    ]
    assert profiles("descriptor", ranges, 1)[1] == {
        "image": ((1, 3, 966, 1448), (1, 3, 1086, 1448), (1, 3, 1086, 1448))
    }
    assert len(profiles("descriptor", ranges, 1)) == 4
    pairs = profiles("reranker", ranges, 4)
    assert len(pairs) == 4
    assert pairs[1]["query_2"] == ((1, 256, 43, 64), (1, 256, 48, 64), (1, 256, 48, 64))
    assert pairs[1]["key_2"] == ((1, 256, 64, 38), (4, 256, 64, 48), (4, 256, 64, 48))
    for graph in GRAPHS:
        assert all(list(profile) == list(graph.inputs) for profile in profiles(graph.name, ranges, 4))
    with pytest.raises(ExportError, match="graph 'x' is unknown"):
        profiles("x", ranges, 1)


def test_largest_tensor(bundle):
    """The stem's 64 channels at half the sides, and the correlation's nine at even positions of one side."""
    features = {"image": (2, 3, 768, 1024)}
    assert largest_tensor(bundle / "features.onnx", features)[0] == 2 * 16 * 768 * 1024
    pair = {name: largest for name, (_, _, largest) in profiles("reranker", [LANDSCAPE], 3)[0].items()}
    assert largest_tensor(bundle / "reranker.onnx", pair)[0] == 3 * 9 * (48 * 64) ** 2 // 4


@pytest.mark.parametrize(("graph", "expected"), [("features", 170), ("reranker", 101)])
def test_largest_batch(bundle, graph, expected):
    file = bundle / f"{graph}.onnx"
    fits, too_many = (profiles(graph, [LANDSCAPE], batch)[0] for batch in (expected, expected + 1))
    assert largest_batch(file, fits) == expected
    check_batch(file, fits)
    with pytest.raises(ExportError, match=rf"less than 2\^31: expected a batch of at most {expected} at this size"):
        check_batch(file, too_many)


def test_a_missing_gpu_is_an_error(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(tensorrt_session, "cuda_devices", list)
    with pytest.raises(BackendError, match=r"^no NVIDIA GPU"):
        build_plan(bundle / "reranker.onnx", tmp_path / "p", [], tmp_path / "c", PlanOptions(), lambda *_: None)


@pytest.fixture
def tensorrt(monkeypatch):
    """A stand-in for TensorRT on a machine with a GPU; the builder's steps can be read off it."""
    module = MagicMock()
    module.__name__, module.__version__ = "tensorrt", "11.4.0.106"
    module.ILogger = type("ILogger", (), {"Severity": MagicMock(INTERNAL_ERROR=0, ERROR=1)})
    module.IProgressMonitor = object
    module.NetworkDefinitionCreationFlag.STRONGLY_TYPED = 1
    builder = module.Builder.return_value
    builder.build_serialized_network.return_value = b"plan"
    config = builder.create_builder_config.return_value
    config.add_optimization_profile.return_value = 0
    config.get_timing_cache.return_value.serialize.return_value = b"new timings"
    inspector = module.Runtime.return_value.deserialize_cuda_engine.return_value.create_engine_inspector.return_value
    inspector.get_engine_information.return_value = '{"Layers": []}'
    module.builder, module.config = builder, config
    monkeypatch.setattr(tensorrt_plan, "require_device", lambda: "NVIDIA H100")
    monkeypatch.setattr(tensorrt_plan, "import_tensorrt", lambda: module)
    return module


def build(bundle, folder, progress=lambda *_: None):
    ranges = [SizeRange((160, 160), (160, 224), (224, 224))]
    options = PlanOptions(workspace_bytes=1 << 30, optimization_level=4)
    arguments = (profiles("reranker", ranges, 2), folder / "timings", options, progress)
    build_plan(bundle / "reranker.onnx", folder / "reranker.plan", *arguments)


def test_build(bundle, tmp_path, tensorrt):
    (tmp_path / "timings").write_bytes(b"old timings")
    build(bundle, tmp_path)
    assert (tmp_path / "reranker.plan").read_bytes() == b"plan"
    assert (tmp_path / "timings").read_bytes() == b"new timings"
    assert json.loads((tmp_path / "reranker.json").read_text()) == {"Layers": []}
    tensorrt.builder.create_network.assert_called_once_with(1 << 1)
    config = tensorrt.config
    config.clear_flag.assert_called_once_with(tensorrt.BuilderFlag.TF32)
    config.set_memory_pool_limit.assert_called_once_with(tensorrt.MemoryPoolType.WORKSPACE, 1 << 30)
    assert config.builder_optimization_level == 4
    config.create_timing_cache.assert_called_once_with(b"old timings")
    shapes = tensorrt.builder.create_optimization_profile.return_value.set_shape
    shapes.assert_any_call("key_2", (1, 256, 10, 10), (2, 256, 10, 14), (2, 256, 14, 14))
    assert shapes.call_count == 6


def test_timings_of_another_gpu_are_ignored(bundle, tmp_path, tensorrt):
    tensorrt.config.set_timing_cache.side_effect = [False, True]
    (tmp_path / "timings").write_bytes(b"of another")
    build(bundle, tmp_path)
    assert [call.args[0] for call in tensorrt.config.create_timing_cache.call_args_list] == [b"of another", b""]


def test_progress_of_outermost_phases_is_reported(bundle, tmp_path, tensorrt):
    reports = []

    def compile_network(*_):
        monitor = tensorrt.config.progress_monitor
        monitor.phase_start("Building", None, 4)
        monitor.phase_start("Timing", "Building", 9)
        assert monitor.step_complete("Timing", 0)
        assert monitor.step_complete("Building", 1)
        monitor.phase_finish("Timing")
        monitor.phase_finish("Building")
        return b"plan"

    tensorrt.builder.build_serialized_network.side_effect = compile_network
    build(bundle, tmp_path, lambda phase, fraction: reports.append((phase, fraction)))
    assert reports == [("Building", 0.0), ("Building", 0.5), ("Building", 1.0)]


def test_a_parser_error_is_one_line(bundle, tmp_path, tensorrt):
    parser = tensorrt.OnnxParser.return_value
    parser.parse_from_file.return_value = False
    parser.num_errors = 2
    error = parser.get_error.return_value
    error.node_operator.return_value, error.node_name.return_value = "Resize", "node_7"
    error.desc.return_value = "Assertion failed:\n  unsupported mode"
    with pytest.raises(ExportError, match=r"\(Resize node_7: Assertion failed: unsupported mode\); install"):
        build(bundle, tmp_path)
    parser.get_error.assert_called_once_with(0)


def test_a_graph_that_does_not_compile_is_an_error(bundle, tmp_path, tensorrt):
    def fail(*_):
        log = tensorrt.Builder.call_args.args[0]
        log.log(1, "Could not find any implementation\nfor node")
        log.log(1, "and more")

    tensorrt.builder.build_serialized_network.side_effect = fail
    with pytest.raises(ExportError, match=r"does not compile it \(Could not find any implementation for node\)"):
        build(bundle, tmp_path)
    assert not (tmp_path / "reranker.plan").exists()
