"""TensorRT for RTX without a GPU: targets, requirements of a bundle, and the kernel cache."""

from unittest.mock import MagicMock

import pytest

from cvnet_engine.engine import machine
from cvnet_engine.engine.backends import BACKENDS, tensorrt, tensorrt_rtx
from cvnet_engine.engine.backends.tensorrt_rtx import (
    DEFAULT_TARGETS,
    TARGETS,
    TensorRtRtxEngine,
    bind,
    require_bound,
    resolve,
)
from cvnet_engine.engine.errors import BackendError, BundleError

library = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")


@pytest.fixture
def on(monkeypatch):
    """Simulate a GPU of a compute capability."""

    def pretend(capability):
        monkeypatch.setattr(tensorrt, "cuda_devices", lambda: ["a GPU"] if capability else [])
        monkeypatch.setattr(machine, "compute_capability", lambda: capability)

    return pretend


def test_targets_equal_those_of_the_library():
    members = {name.lower() for name in library.ComputeCapability.__members__}
    assert set(TARGETS) == members - {"none", "current"}


def test_default_targets_are_ampere_and_later():
    assert resolve([]) == DEFAULT_TARGETS == ("sm80", "sm86", "sm89", "sm120", "sm121")


def test_named_targets_and_the_current_one(on):
    on("8.9")
    assert resolve(["sm75", "current", "sm89", "sm75"]) == ("sm75", "sm89")


def test_an_unknown_target_is_refused():
    with pytest.raises(BackendError, match=r"^TensorRT for RTX does not support target 'sm90'; expected sm75, sm80"):
        resolve(["sm86", "sm90"])


@pytest.mark.parametrize(
    ("capability", "message"),
    [
        (None, "^no NVIDIA GPU on this machine"),
        ("9.0", r"^a GPU has compute capability 9.0, which TensorRT for RTX does not support; .* --backend tensorrt$"),
    ],
)
def test_a_machine_without_a_supported_gpu_is_refused(on, capability, message):
    on(capability)
    with pytest.raises(BackendError, match=message):
        resolve(["current"])
    with pytest.raises(BackendError, match=message):
        require_bound(bind(TARGETS))
    assert not BACKENDS["tensorrt-rtx"].takes_device()


def test_a_bundle_opens_on_its_targets_only(on):
    bound = bind(["sm86", "sm89"])
    assert bound == {"targets": "sm86,sm89", "tensorrt_rtx": library.__version__}
    for capability in ("8.6", "8.9"):
        on(capability)
        require_bound(bound)
    on("12.0")
    with pytest.raises(BundleError, match=r"has a GPU of sm120 \(built for sm86,sm89\); .*targets sm120$"):
        require_bound(bound)


def test_a_bundle_of_another_version_is_refused(on):
    on("8.9")
    with pytest.raises(BundleError, match=r"has TensorRT for RTX \S+ \(built with 1.6.0.1\); build the bundle again"):
        require_bound(bind(["sm89"]) | {"tensorrt_rtx": "1.6.0.1"})


def test_kernels_are_cached_by_plan_and_architecture(on, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plan = tmp_path / "reranker.plan"
    files = set()
    for content, capability in ((b"a", "8.6"), (b"a", "8.9"), (b"b", "8.9")):
        plan.write_bytes(content)
        on(capability)
        files.add(tensorrt_rtx.kernels_file(plan))
    assert len(files) == 3
    assert {file.parent for file in files} == {tmp_path / "cvnet-engine"}


@pytest.fixture
def opened(on, tmp_path, monkeypatch):
    """Opens an engine on a stand-in for the library's, and closes it; returns the stand-in's runtime configuration."""
    on("8.9")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plan = tmp_path / "x.plan"
    plan.write_bytes(b"plan")
    library_engine = MagicMock()

    def open_plan(engine, plan):
        engine._create_context(library_engine, plan)

    monkeypatch.setattr(tensorrt.TensorRtEngine, "__init__", open_plan)
    monkeypatch.setattr(tensorrt.TensorRtEngine, "close", lambda _: None)

    def open_and_close(**options):
        library_engine.reset_mock()
        config = library_engine.create_runtime_config.return_value
        config.create_runtime_cache.return_value.serialize.return_value = b"kernels"
        config.cuda_graph_strategy = library.CudaGraphStrategy.DISABLED
        TensorRtRtxEngine(plan, **options).close()
        library_engine.create_execution_context.assert_called_once_with(config)
        return config

    return open_and_close


def test_compiled_kernels_are_cached(opened, tmp_path, monkeypatch):
    """Without a writable folder they are compiled again."""

    def kernels_of_a_run():
        return opened().create_runtime_cache.return_value

    kernels_of_a_run().deserialize.assert_not_called()
    kernels_of_a_run().deserialize.assert_called_once_with(b"kernels")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x.plan"))  # a file
    kernels_of_a_run().deserialize.assert_not_called()


def test_kernels_in_a_folder_writable_by_others_are_refused(opened, tmp_path):
    opened()
    folder = tmp_path / "cache" / "cvnet-engine"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(BackendError, match=r"other users may write.*set XDG_CACHE_HOME"):
        opened()


def test_new_shapes_start_on_generic_kernels(opened):
    strategy = opened().dynamic_shapes_kernel_specialization_strategy
    assert strategy == library.DynamicShapesKernelSpecializationStrategy.LAZY


@pytest.mark.parametrize(("asked", "strategy"), [(False, "DISABLED"), (True, "WHOLE_GRAPH_CAPTURE")])
def test_cuda_graphs_are_captured_only_on_request(opened, asked, strategy):
    assert opened(cuda_graphs=asked).cuda_graph_strategy == getattr(library.CudaGraphStrategy, strategy)
