"""The TensorRT engine without a GPU: errors, and runs on stand-ins for TensorRT and the CUDA runtime.

The stand-in engine doubles its input, on the device of `fake_cuda`. test_tensorrt_contract.py checks the names.
"""

# The stand-ins have the names and the arguments of what they stand in for.
# ruff: noqa: ARG002

import ctypes
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from cvnet_engine.engine.backends import tensorrt as tensorrt_session
from cvnet_engine.engine.backends.tensorrt import TensorRtEngine, bind, choose_profile, require_bound
from cvnet_engine.engine.contract import TensorSpec
from cvnet_engine.engine.errors import BackendError, BundleError
from tests.engine.backends.fake_cuda import FakeCudart

PROFILES = [  # rows of three
    {"x": ((1, 3), (4, 3))},
    {"x": ((1, 3), (10, 3))},
    {"x": ((20, 3), (40, 3))},
]


def in_memory(address, shape, dtype):
    size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_ubyte * size_bytes).from_address(address), dtype).reshape(shape)


class FakeContext:
    """An execution context of an engine that doubles its input."""

    def __init__(self, engine):
        self.engine, self.log, self.switches, self.enqueued, self.fails = engine, engine.log, 0, 0, False
        self.active_optimization_profile = 0
        self.shapes_set = []
        self.addresses = {}

    def set_device_memory(self, address, size):
        assert size == self.engine.device_memory_size_v2
        assert address in self.engine.cudart.memory

    def set_optimization_profile_async(self, index, stream):
        self.active_optimization_profile, self.switches = index, self.switches + 1
        return True

    def set_input_shape(self, name, shape):
        self.shape = shape
        self.shapes_set.append(shape)
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
        low, high = PROFILES[self.active_optimization_profile]["x"]
        assert low <= tuple(self.shape) <= high
        shape, addresses = self.shape, dict(self.addresses)

        def double():
            x, y = (in_memory(addresses[name], shape, self.engine.get_tensor_dtype(name)) for name in "xy")
            y[...] = 2 * x

        self.enqueued += 1
        self.engine.cudart.streams[stream].append(double)
        return True


class FakeEngine:
    """x (-1, 3) -> y (-1, 3)."""

    num_io_tensors, num_optimization_profiles, device_memory_size_v2 = 2, len(PROFILES), 64

    def __init__(self, log, cudart):
        self.log, self.cudart = log, cudart
        self.contexts = []
        self.room_for = 100  # contexts

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

    def create_execution_context(self, strategy="static"):
        if len(self.contexts) == self.room_for:
            self.log.log(FakeTensorRt.ILogger.Severity.ERROR, "no memory for a context")
            return None
        self.contexts.append(FakeContext(self))
        return self.contexts[-1]


class FakeTensorRt:
    """The module `tensorrt`."""

    __version__ = "11.4.0.106"
    TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    cudart = None  # of the device

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
            return FakeEngine(self.log, FakeTensorRt.cudart)

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
    monkeypatch.setattr(FakeTensorRt, "cudart", fake)
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


def test_inputs_and_outputs_of_a_plan(engine):
    assert engine.inputs == {"x": TensorSpec("float32", ("x_0", 3))}
    assert engine.outputs == {"y": TensorSpec("float32", ("y_0", 3))}


@pytest.mark.parametrize("n", [2, 4, 7, 20, 40])
def test_a_run_doubles_the_input(engine, n):
    np.testing.assert_array_equal(engine.run({"x": rows(n)})["y"], 2 * rows(n))


def test_arrays_need_not_be_contiguous(engine):
    x = rows(4)[::-1]
    np.testing.assert_array_equal(engine.run({"x": x})["y"], 2 * x)


def test_outputs_do_not_change_in_the_next_run(engine):
    first = engine.run({"x": rows(2)})["y"]
    engine.run({"x": 5 * rows(2)})
    np.testing.assert_array_equal(first, 2 * rows(2))


def test_buffers_are_reused_and_grow(engine, cudart):
    for n, allocations in ((4, 4), (2, 4), (4, 4), (10, 8), (3, 8)):  # device and host, of x and y
        engine.run({"x": rows(n)})
        assert cudart.allocations == allocations
    assert len(cudart.memory) == 4


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_close_frees_everything(plan, cudart, cuda_graphs):
    engine = TensorRtEngine(plan, cuda_graphs)
    x = rows(4)
    engine.upload({"x": x})
    for fed in (x, rows(2), rows(4), rows(4)):
        engine.run({"x": fed})
    engine.upload({"x": rows(3)})
    engine.close()
    assert (cudart.memory, cudart.streams, cudart.events, cudart.graphs) == ({}, {}, {}, {})


# uploads


def test_an_uploaded_array_is_copied_once(engine, cudart):
    """An equal array that is another object is copied."""
    x = rows(4)
    engine.upload({"x": x})
    engine.upload({"x": x})
    for _ in range(3):
        np.testing.assert_array_equal(engine.run({"x": x})["y"], 2 * x)
    assert cudart.copies == [x.nbytes]
    same, other = x.copy(), 3 * x
    for fed in (same, other, x):
        np.testing.assert_array_equal(engine.run({"x": fed})["y"], 2 * fed)
    assert cudart.copies == [x.nbytes] * 4


def test_an_array_that_was_not_uploaded_may_change(engine):
    x = rows(4)
    engine.run({"x": x})
    x += 1
    np.testing.assert_array_equal(engine.run({"x": x})["y"], 2 * x)


def test_two_alternating_arrays_stay_on_the_device(engine, cudart):
    one, other = rows(4), 7 * rows(3)
    for x in (one, other, one, other):
        engine.upload({"x": x})
        np.testing.assert_array_equal(engine.run({"x": x})["y"], 2 * x)
    assert len(cudart.copies) == 2


def test_an_upload_keeps_earlier_arrays_intact(engine):
    """The stand-in copies as late as possible, so a mirror written too early would give wrong numbers."""
    one, other, third = rows(4), 3 * rows(4), 5 * rows(4)
    engine.upload({"x": one})
    np.testing.assert_array_equal(engine.run({"x": one})["y"], 2 * one)
    engine.upload({"x": other})
    np.testing.assert_array_equal(engine.run({"x": one})["y"], 2 * one)
    engine.upload({"x": third})  # into the buffer of `other`
    np.testing.assert_array_equal(engine.run({"x": third})["y"], 2 * third)
    np.testing.assert_array_equal(engine.run({"x": other})["y"], 2 * other)
    np.testing.assert_array_equal(engine.run({"x": one})["y"], 2 * one)


def test_memory_grows_only_after_its_copy(engine):
    engine.upload({"x": rows(2)})
    x = rows(10)
    engine.upload({"x": x})
    np.testing.assert_array_equal(engine.run({"x": x})["y"], 2 * x)


def test_a_failed_upload_is_repeated(engine, cudart):
    x = rows(10)
    cudart.limit_bytes = 100
    with pytest.raises(BackendError, match="cudaErrorMemoryAllocation"):
        engine.upload({"x": x})
    cudart.limit_bytes = 200
    np.testing.assert_array_equal(engine.run({"x": x})["y"], 2 * x)


def test_an_input_in_float16_takes_any_floating_type(plan, cudart, monkeypatch):
    """It is rounded on the host, so half the bytes are copied."""
    monkeypatch.setattr(FakeEngine, "get_tensor_dtype", lambda _, name: np.float16 if name == "x" else np.float32)
    engine = TensorRtEngine(plan)
    assert engine.inputs["x"].dtype == "floating"
    assert engine.outputs["y"].dtype == "float32"
    for dtype in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(engine.run({"x": rows(4).astype(dtype)})["y"], 2 * rows(4))
    assert cudart.copies == [2 * 12] * 3


# CUDA graphs


@pytest.fixture
def graphed(cudart, plan):
    opened = TensorRtEngine(plan, cuda_graphs=True)
    assert opened._cudart is cudart
    return opened


def enqueued(engine):
    """Return how often each context was enqueued."""
    return [context.enqueued for context in engine._engine.contexts]


def test_a_run_is_enqueued_then_captured_then_launched(graphed, cudart):
    for run in range(4):
        x = run + rows(4)
        np.testing.assert_array_equal(graphed.run({"x": x})["y"], 2 * x)
        assert (enqueued(graphed), cudart.launches) == ([2], run)  # once to run, once to be captured


def test_without_the_option_nothing_is_captured(engine, cudart):
    for _ in range(3):
        engine.run({"x": rows(4)})
    assert (enqueued(engine), cudart.graphs) == ([3], {})


def test_each_shape_has_a_context_that_is_set_once(graphed, cudart):
    graphed.run({"x": rows(10)})  # allocates all memory
    for n in (4, 30, 4, 30, 4, 10):
        np.testing.assert_array_equal(graphed.run({"x": rows(n)})["y"][:4], 2 * rows(n)[:4])
    assert [context.shapes_set for context in graphed._engine.contexts] == [[(n, 3)] for n in (10, 4, 30, 4, 10)]
    assert cudart.launches == 2


def test_graphs_are_dropped_when_memory_moves(graphed, cudart):
    graphed.run({"x": rows(4)})
    graphed.run({"x": rows(30)})
    assert len(cudart.graphs) == 1
    for n, launches in ((4, 0), (4, 1), (30, 2)):
        np.testing.assert_array_equal(graphed.run({"x": rows(n)})["y"], 2 * rows(n))
        assert cudart.launches == launches


def test_each_input_buffer_has_its_graph(graphed, cudart):
    """Uploaded arrays alternate between two buffers."""
    for run in range(6):
        x = run + rows(4)
        graphed.upload({"x": x})
        np.testing.assert_array_equal(graphed.run({"x": x})["y"], 2 * x)
    assert (len(cudart.graphs), len(graphed._engine.contexts)) == (2, 3)  # the first one's memory moved
    assert cudart.launches == 3


def test_the_least_recently_used_graph_is_dropped(graphed, cudart, monkeypatch):
    monkeypatch.setattr(tensorrt_session, "MOST_CAPTURES", 2)
    graphed.run({"x": rows(10)})
    for n, launches in ((1, 0), (2, 0), (1, 1), (3, 1), (1, 2), (2, 2)):
        graphed.run({"x": rows(n)})
        assert cudart.launches == launches
        assert len(cudart.graphs) <= 2


def test_a_failed_capture_gives_the_reason_and_frees_the_stream(graphed, monkeypatch):
    executed = FakeContext.execute_async_v3

    def fail_second(context, stream):
        context.fails = context.enqueued == 1
        return executed(context, stream)

    with monkeypatch.context() as patched:
        patched.setattr(FakeContext, "execute_async_v3", fail_second)
        with pytest.raises(BackendError, match="Cuda failure: out of memory"):
            graphed.run({"x": rows(2)})
    np.testing.assert_array_equal(graphed.run({"x": rows(3)})["y"], 2 * rows(3))


def test_a_context_that_does_not_fit_is_an_error(graphed):
    graphed._engine.room_for = 0
    with pytest.raises(BackendError, match=r"no room on the GPU for a plan \(no memory for a context\)"):
        graphed.run({"x": rows(2)})


# shapes, errors


def test_the_profile_changes_only_when_necessary(engine):
    context = engine._context
    for n in (4, 3, 10, 9, 30, 30, 1):
        engine.run({"x": rows(n)})
    assert context.switches == 3


def test_a_shape_outside_the_profiles_is_refused(engine):
    message = r"^input 'x' is 50x3; this engine takes 1x3 to 4x3, or 1x3 to 10x3, or 20x3 to 40x3: .* --sizes"
    with pytest.raises(BackendError, match=message):
        engine.run({"x": rows(50)})


def test_a_feed_of_another_dtype_is_refused(engine):
    with pytest.raises(BackendError, match="input 'x' is float64"):
        engine.run({"x": rows(2).astype(float)})


def test_a_failed_run_gives_the_reason(engine):
    engine._context.fails = True
    with pytest.raises(BackendError, match=r"^TensorRT stopped \(Cuda failure: out of memory\); if GPU memory ran out"):
        engine.run({"x": rows(2)})


def test_inputs_of_different_images_are_refused(engine, monkeypatch):
    def refuse():
        raise RuntimeError("shape inference failed")

    monkeypatch.setattr(engine._context, "infer_shapes", refuse)
    with pytest.raises(BackendError, match="inputs x 2x3 do not go together"):
        engine.run({"x": rows(2)})


def test_a_run_works_again_after_memory_ran_out(engine, cudart):
    cudart.limit_bytes = 100
    engine.run({"x": rows(8)})
    with pytest.raises(BackendError, match="CUDA stopped \\(cudaErrorMemoryAllocation\\); free GPU memory"):
        engine.run({"x": rows(10)})
    cudart.limit_bytes = 200
    np.testing.assert_array_equal(engine.run({"x": rows(10)})["y"], 2 * rows(10))


@pytest.mark.usefixtures("cudart")
def test_a_plan_of_another_version_is_refused(plan):
    plan.write_bytes(b"other")
    with pytest.raises(BackendError, match=r"does not open it \(expecting library version 11.4, got 10.16\).*again"):
        TensorRtEngine(plan)


def test_a_missing_gpu_is_found_before_tensorrt_is_imported(plan, monkeypatch):
    monkeypatch.setattr(tensorrt_session, "cuda_devices", list)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match=r"^no NVIDIA GPU on this machine"):
        TensorRtEngine(plan)


@pytest.mark.parametrize(
    ("module", "message"), [("tensorrt", "^TensorRT cannot"), ("cuda.bindings.runtime", "^cuda-bindings")]
)
def test_a_missing_library_is_an_error_with_the_install_command(plan, module, message, monkeypatch):
    monkeypatch.setattr(tensorrt_session, "cuda_devices", lambda: ["NVIDIA H100"])
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRt)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match=message + r".*pip install '.\[tensorrt\]'"):
        TensorRtEngine(plan)


def test_the_tightest_profile_is_chosen():
    tight = {"a": ((1,), (2,)), "b": ((5,), (6,))}
    wide = {"a": ((1,), (9,)), "b": ((1,), (9,))}
    assert choose_profile([wide, tight], {"a": (2,), "b": (5,)}) == 1
    assert choose_profile([wide, tight], {"a": (2,), "b": (7,)}) == 0
    with pytest.raises(BackendError, match="input 'b' is 10; this engine takes 1 to 9, or 5 to 6"):
        choose_profile([wide, tight], {"a": (2,), "b": (10,)})


BUILT = {"gpu": "NVIDIA H100", "compute_capability": "9.0", "tensorrt": "11.4.0.106", "cuda": "13.2"}


@pytest.mark.usefixtures("cudart")
def test_bind_describes_this_machine():
    assert bind() == BUILT


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cuda": "13.10"}, None),  # newer drivers
        ({"cuda": "14.0"}, None),
        (
            {"gpu": "NVIDIA L4", "compute_capability": "8.9"},
            "gpu NVIDIA L4 (built for NVIDIA H100), compute capability 8.9 (built for 9.0);",
        ),
        ({"tensorrt": "10.16.1.11"}, "tensorrt 10.16.1.11 (built for 11.4.0.106);"),
        ({"cuda": "12.9"}, "cuda 12.9 (built with 13.2);"),
    ],
)
def test_a_plan_of_another_machine_is_refused(changes, words, monkeypatch):
    monkeypatch.setattr(tensorrt_session, "bind", lambda: BUILT | changes)
    if words is None:
        require_bound(BUILT)
        return
    with pytest.raises(BundleError, match=rf"^this machine has {re.escape(words)}.*build the bundle again"):
        require_bound(BUILT)
