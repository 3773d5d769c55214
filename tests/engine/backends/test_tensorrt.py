"""The TensorRT engine without a GPU: its errors, and its run on stand-ins for TensorRT and the CUDA runtime.

The stand-ins keep 'device' memory on the host; their engine doubles its input. That every name they have is real is
for test_tensorrt_contract.py to show.
"""

# The stand-ins have the names and the arguments of what they stand in for.
# ruff: noqa: ARG002, N802, N815

import ctypes
import enum
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from engine.backends import tensorrt as tensorrt_session
from engine.backends.tensorrt import Fingerprint, TensorRtEngine, check_fingerprint, choose_profile, fingerprint
from engine.contract import TensorSpec
from engine.errors import BackendError, BundleError

PROFILES = [  # rows of three
    {"x": ((1, 3), (4, 3))},
    {"x": ((1, 3), (10, 3))},
    {"x": ((20, 3), (40, 3))},
]


class Status(enum.Enum):
    """Of a CUDA runtime call."""

    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2


class FakeCudart:
    """The CUDA runtime on host memory."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def __init__(self):
        self.memory = {}
        self.allocations = 0
        self.limit_bytes = 1 << 20

    def cudaMalloc(self, size):
        if size > self.limit_bytes:
            return Status.cudaErrorMemoryAllocation, None
        block = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(block)] = block
        self.allocations += 1
        return Status.cudaSuccess, ctypes.addressof(block)

    cudaMallocHost = cudaMalloc

    def cudaFree(self, address):
        if address:
            del self.memory[address]
        return (Status.cudaSuccess,)

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        ctypes.memmove(target, source, size)
        return (Status.cudaSuccess,)

    def cudaStreamCreate(self):
        return Status.cudaSuccess, 7

    def cudaStreamSynchronize(self, stream):
        return (Status.cudaSuccess,)

    cudaStreamDestroy = cudaStreamSynchronize

    def cudaGetDeviceProperties(self, device):
        return Status.cudaSuccess, SimpleNamespace(major=9, minor=0)

    def cudaDriverGetVersion(self):
        return Status.cudaSuccess, 13020


class FakeContext:
    """An execution context whose engine doubles."""

    def __init__(self, log):
        self.log, self.profile, self.switches, self.fails = log, 0, 0, False
        self.addresses = {}

    def set_optimization_profile_async(self, index, stream):
        self.profile, self.switches = index, self.switches + 1
        return True

    def set_input_shape(self, name, shape):
        self.shape = shape
        return True

    def infer_shapes(self):
        return []

    def get_tensor_shape(self, name):
        return list(self.shape)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        if self.fails:
            self.log.log(FakeTensorRt.ILogger.Severity.ERROR, "Cuda failure:\n  out of memory")
            return False
        low, high = PROFILES[self.profile]["x"]
        assert low <= tuple(self.shape) <= high
        count = int(np.prod(self.shape))
        x, y = (np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses[n])) for n in "xy")
        y[:] = 2 * x
        return True


class FakeEngine:
    """x (-1, 3) -> y (-1, 3)."""

    num_io_tensors, num_optimization_profiles = 2, len(PROFILES)

    def __init__(self, log):
        self.context = FakeContext(log)

    def get_tensor_name(self, index):
        return "xy"[index]

    def get_tensor_mode(self, name):
        return {"x": "input", "y": "output"}[name]

    def get_tensor_dtype(self, name):
        return np.float32

    def get_tensor_shape(self, name):
        return [-1, 3]

    def get_tensor_profile_shape(self, name, index):
        low, high = PROFILES[index][name]
        return [list(low), list(high), list(high)]

    def create_execution_context(self):
        return self.context


class FakeTensorRt:
    """The module `tensorrt`."""

    __version__ = "11.4.0.106"
    TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, INFO=3)

    class Runtime:
        def __init__(self, log):
            self.log = log

        def deserialize_cuda_engine(self, data):
            if data != b"plan":
                self.log.log(FakeTensorRt.ILogger.Severity.INFO, "reading")
                self.log.log(FakeTensorRt.ILogger.Severity.ERROR, "expecting library version 11.4, got 10.16")
                return None
            return FakeEngine(self.log)

    @staticmethod
    def nptype(dtype):
        return dtype


@pytest.fixture
def cudart(monkeypatch):
    """A machine with a GPU and TensorRT; its CUDA runtime."""
    fake = FakeCudart()
    monkeypatch.setattr(tensorrt_session, "cuda_devices", lambda: ["NVIDIA H100"])
    monkeypatch.setattr(tensorrt_session, "import_tensorrt", lambda: FakeTensorRt)
    monkeypatch.setattr(tensorrt_session, "import_cudart", lambda: fake)
    return fake


@pytest.fixture
def plan(tmp_path):
    file = tmp_path / "x.plan"
    file.write_bytes(b"plan")
    return file


@pytest.fixture
def engine(cudart, plan):
    opened = TensorRtEngine(plan)
    assert opened._cudart is cudart
    return opened


def rows(n):
    return np.arange(3 * n, dtype=np.float32).reshape(n, 3)


def test_specs(engine):
    assert engine.inputs == {"x": TensorSpec("float32", ("x_0", 3))}
    assert engine.outputs == {"y": TensorSpec("float32", ("y_0", 3))}


@pytest.mark.parametrize("n", [2, 4, 7, 20, 40])
def test_run(engine, n):
    np.testing.assert_array_equal(engine.run({"x": rows(n)})["y"], 2 * rows(n))


def test_run_takes_arrays_that_are_not_contiguous(engine):
    x = rows(4)[::-1]
    np.testing.assert_array_equal(engine.run({"x": x})["y"], 2 * x)


def test_outputs_are_the_callers(engine):
    first = engine.run({"x": rows(2)})["y"]
    engine.run({"x": 5 * rows(2)})
    np.testing.assert_array_equal(first, 2 * rows(2))


def test_buffers_stay_and_grow(engine, cudart):
    for n, allocations in ((4, 4), (2, 4), (4, 4), (10, 8), (3, 8)):  # device and host, of x and y
        engine.run({"x": rows(n)})
        assert cudart.allocations == allocations
    assert len(cudart.memory) == 4


def test_close_frees_everything(engine, cudart):
    engine.run({"x": rows(4)})
    engine.close()
    assert not cudart.memory


def test_the_profile_changes_only_when_it_must(engine):
    context = engine._context
    for n in (4, 3, 10, 9, 30, 30, 1):
        engine.run({"x": rows(n)})
    assert context.switches == 3


def test_a_shape_outside_the_profiles(engine):
    message = r"^input 'x' is 50x3; this engine takes 1x3 to 4x3, or 1x3 to 10x3, or 20x3 to 40x3: .* --sizes"
    with pytest.raises(BackendError, match=message):
        engine.run({"x": rows(50)})


def test_a_feed_of_another_type(engine):
    with pytest.raises(BackendError, match="input 'x' is float64"):
        engine.run({"x": rows(2).astype(float)})


def test_a_failed_run_says_why(engine):
    engine._context.fails = True
    with pytest.raises(BackendError, match=r"^TensorRT stopped \(Cuda failure: out of memory\); if GPU memory ran out"):
        engine.run({"x": rows(2)})


def test_inputs_that_do_not_go_together(engine, monkeypatch):
    def refuse():
        raise RuntimeError("shape inference failed")

    monkeypatch.setattr(engine._context, "infer_shapes", refuse)
    with pytest.raises(BackendError, match="inputs x 2x3 do not go together"):
        engine.run({"x": rows(2)})


def test_gpu_memory_that_runs_out(engine, cudart):
    cudart.limit_bytes = 100
    engine.run({"x": rows(8)})
    with pytest.raises(BackendError, match="CUDA stopped \\(cudaErrorMemoryAllocation\\); free GPU memory"):
        engine.run({"x": rows(10)})
    cudart.limit_bytes = 200
    np.testing.assert_array_equal(engine.run({"x": rows(10)})["y"], 2 * rows(10))


@pytest.mark.usefixtures("cudart")
def test_a_plan_of_another_version(plan):
    plan.write_bytes(b"other")
    with pytest.raises(BackendError, match=r"does not open it \(expecting library version 11.4, got 10.16\).*again"):
        TensorRtEngine(plan)


def test_no_gpu_is_found_before_tensorrt_is_touched(plan, monkeypatch):
    monkeypatch.setattr(tensorrt_session, "cuda_devices", list)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match=r"^no NVIDIA GPU on this machine"):
        TensorRtEngine(plan)


@pytest.mark.parametrize(("module", "message"), [("tensorrt", "^TensorRT cannot"), ("cuda.bindings", "^cuda-bindings")])
def test_libraries_that_are_not_installed(plan, module, message, monkeypatch):
    monkeypatch.setattr(tensorrt_session, "cuda_devices", lambda: ["NVIDIA H100"])
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRt)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match=message + ".*install the 'tensorrt' extra"):
        TensorRtEngine(plan)


def test_profiles_of_several_inputs():
    tight = {"a": ((1,), (2,)), "b": ((5,), (6,))}
    wide = {"a": ((1,), (9,)), "b": ((1,), (9,))}
    assert choose_profile([wide, tight], {"a": (2,), "b": (5,)}) == 1
    assert choose_profile([wide, tight], {"a": (2,), "b": (7,)}) == 0
    with pytest.raises(BackendError, match="input 'b' is 10; this engine takes 1 to 9, or 5 to 6"):
        choose_profile([wide, tight], {"a": (2,), "b": (10,)})


BUILT = Fingerprint("NVIDIA H100", "9.0", "11.4.0.106", "13.2")


@pytest.mark.usefixtures("cudart")
def test_fingerprint():
    assert fingerprint() == BUILT


@pytest.mark.parametrize("cuda", ["13.2", "13.10", "14.0"])
def test_a_newer_driver_is_fine(cuda):
    check_fingerprint(BUILT, replace(BUILT, cuda=cuda))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"gpu": "NVIDIA L4", "compute_capability": "8.9"},
            "gpu NVIDIA L4 (built for NVIDIA H100), compute capability",
        ),
        ({"tensorrt": "10.16.1.11"}, "tensorrt 10.16.1.11 (built for 11.4.0.106);"),
        ({"cuda": "12.9"}, "cuda 12.9 (built with 13.2);"),
    ],
)
def test_another_machine_is_refused(change, words):
    with pytest.raises(BundleError) as caught:
        check_fingerprint(BUILT, replace(BUILT, **change))
    assert str(caught.value).startswith(f"this machine has {words}")
    assert "build the bundle again" in str(caught.value)
    assert "\n" not in str(caught.value)
