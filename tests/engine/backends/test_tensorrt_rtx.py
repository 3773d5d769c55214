"""TensorRT for RTX without a GPU: its targets against the real library, what a bundle is bound to, its kernel cache."""

from unittest.mock import MagicMock

import pytest

from engine import machine
from engine.backends import BACKENDS, tensorrt, tensorrt_rtx
from engine.backends.tensorrt_rtx import DEFAULT_TARGETS, TARGETS, TensorRtRtxEngine, bind, require_bound, resolve
from engine.errors import BackendError, BundleError

library = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")


@pytest.fixture
def on(monkeypatch):
    """Makes this machine one with a GPU of a compute capability."""

    def pretend(capability):
        monkeypatch.setattr(tensorrt, "cuda_devices", lambda: ["a GPU"] if capability else [])
        monkeypatch.setattr(machine, "compute_capability", lambda: capability)

    return pretend


def test_targets_are_the_librarys():
    members = {name.lower() for name in library.ComputeCapability.__members__}
    assert set(TARGETS) == members - {"none", "current"}


def test_targets_by_default_are_ampere_and_later():
    assert resolve([]) == DEFAULT_TARGETS == ("sm80", "sm86", "sm89", "sm120", "sm121")


def test_targets_that_are_named(on):
    on("8.9")
    assert resolve(["sm75", "current", "sm89", "sm75"]) == ("sm75", "sm89")


def test_a_target_that_does_not_exist():
    with pytest.raises(BackendError, match=r"^target 'sm90' is none of TensorRT for RTX's; expected sm75, sm80"):
        resolve(["sm86", "sm90"])


@pytest.mark.parametrize(
    ("capability", "message"),
    [
        (None, "^no NVIDIA GPU on this machine"),
        ("9.0", r"^a GPU has compute capability 9.0, which TensorRT for RTX does not take; .* --backend tensorrt$"),
    ],
)
def test_a_machine_without_a_gpu_that_it_takes(on, capability, message):
    on(capability)
    with pytest.raises(BackendError, match=message):
        resolve(["current"])
    with pytest.raises(BackendError, match=message):
        require_bound(bind(TARGETS))
    assert not BACKENDS["tensorrt-rtx"].takes_device()


def test_a_bundle_opens_on_each_of_its_targets_and_on_no_other(on):
    bound = bind(["sm86", "sm89"])
    assert bound == {"targets": "sm86,sm89", "tensorrt_rtx": library.__version__}
    for capability in ("8.6", "8.9"):
        on(capability)
        require_bound(bound)
    on("12.0")
    with pytest.raises(BundleError, match=r"has a GPU of sm120 \(built for sm86,sm89\); .*targets sm120$"):
        require_bound(bound)


def test_a_bundle_of_another_version(on):
    on("8.9")
    with pytest.raises(BundleError, match=r"has TensorRT for RTX \S+ \(built with 1.6.0.1\); build the bundle again"):
        require_bound(bind(["sm89"]) | {"tensorrt_rtx": "1.6.0.1"})


def test_kernels_are_kept_by_plan_and_architecture(on, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plan = tmp_path / "reranker.plan"
    files = set()
    for content, capability in ((b"a", "8.6"), (b"a", "8.9"), (b"b", "8.9")):
        plan.write_bytes(content)
        on(capability)
        files.add(tensorrt_rtx.kernels_file(plan))
    assert len(files) == 3
    assert {file.parent for file in files} == {tmp_path / "cvnet-engine"}


def test_compiled_kernels_outlive_the_engine(on, tmp_path, monkeypatch):
    """On a stand-in for the library's engine; a folder that cannot be written costs only the time to compile again."""
    on("8.9")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tensorrt.TensorRtEngine, "close", lambda _: None)
    plan = tmp_path / "x.plan"
    plan.write_bytes(b"plan")

    def kernels_of_a_run():
        library_engine = MagicMock()
        kernels = library_engine.create_runtime_config.return_value.create_runtime_cache.return_value
        kernels.serialize.return_value = b"kernels"
        engine = TensorRtRtxEngine.__new__(TensorRtRtxEngine)
        engine._create_context(library_engine, plan)
        engine.close()
        return kernels

    kernels_of_a_run().deserialize.assert_not_called()
    kernels_of_a_run().deserialize.assert_called_once_with(b"kernels")
    monkeypatch.setenv("XDG_CACHE_HOME", str(plan))  # a file
    kernels_of_a_run().deserialize.assert_not_called()
