"""Engine on ONNX Runtime, on the CPU or on CUDA. It fails rather than falling back from CUDA to the CPU."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cvnet_engine.engine.contract import Array, Closing, TensorSpec, check_feeds
from cvnet_engine.engine.errors import BackendError, backend_failure, import_library, install_hint, one_line

DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8", "tensor(int64)": "int64"}
# These may run on the CPU when CUDA is requested: they compute shapes, a few integers each.
SHAPE_OPS = frozenset(
    {
        "Shape",
        "Size",
        "Gather",
        "Concat",
        "Unsqueeze",
        "Squeeze",
        "Slice",
        "Cast",
        "Reshape",
        "Range",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Mod",
        "Equal",
        "Where",
        "ConstantOfShape",
        "Identity",
    }
)


class OnnxRuntimeEngine(Closing):
    """An `Engine` on ONNX Runtime's CPU or CUDA provider."""

    def __init__(self, graph: Path, cuda: bool, threads: int) -> None:
        ort = import_onnxruntime()
        provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
        if provider not in ort.get_available_providers():
            raise BackendError(
                "ONNX Runtime has no CUDA provider here; on a machine with an NVIDIA GPU uninstall onnxruntime and "
                f"{install_hint('gpu')}; elsewhere build the bundle with --backend onnxruntime"
            )
        if cuda:
            load_cuda_libraries(ort)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # fatal errors only; others reach the caller as exceptions
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            self._session: Any = ort.InferenceSession(str(graph), options, providers=[provider])
        except Exception as error:  # onnxruntime's exceptions share no base class
            message = f"{graph}: ONNX Runtime does not open it ({one_line(error)}); build the bundle again"
            raise backend_failure(error, message) from error
        if cuda:
            self._assert_on_cuda(graph)
        self.inputs = specs(self._session.get_inputs())
        self.outputs = specs(self._session.get_outputs())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        check_feeds(feeds, self.inputs)
        try:
            arrays = self._session.run(None, dict(feeds))
        except Exception as error:
            message = f"ONNX Runtime stopped ({one_line(error)}); build the bundle again, or with another --backend"
            raise backend_failure(error, message) from error
        return dict(zip(self.outputs, arrays, strict=True))

    def close(self) -> None:
        self._session = None

    def _assert_on_cuda(self, graph: Path) -> None:
        """Raise BackendError if ONNX Runtime fell back to the CPU, for the session or for single nodes."""
        actual = self._session.get_providers()[0]
        if actual != "CUDAExecutionProvider":
            raise BackendError(
                f"{graph}: CUDA was requested and ONNX Runtime chose {actual}; "
                "check the driver with 'cvnet-engine doctor'"
            )
        strays = {
            node.op_type
            for part in self._session.get_provider_graph_assignment_info()
            if part.ep_name != "CUDAExecutionProvider"
            for node in part.get_nodes()
        } - SHAPE_OPS
        if strays:
            raise BackendError(
                f"{graph}: {', '.join(sorted(strays))} would run on the CPU although CUDA was requested; "
                "build the bundle again with --backend onnxruntime"
            )


def open_cpu(graph: Path, _precision: str, threads: int) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(graph, cuda=False, threads=threads)


def open_cuda(graph: Path, _precision: str, threads: int) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(graph, cuda=True, threads=threads)


def import_onnxruntime() -> Any:
    return import_library("onnxruntime", "ONNX Runtime", "cpu", " ('gpu' instead of 'cpu' for an NVIDIA GPU)")


def load_cuda_libraries(ort: Any) -> None:
    """Load CUDA and cuDNN from the packages of the 'gpu' extra; its failure messages go to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        ort.preload_dlls()


def specs(nodes: Any) -> dict[str, TensorSpec]:
    return {node.name: TensorSpec(DTYPES.get(node.type, node.type), tuple(node.shape)) for node in nodes}
