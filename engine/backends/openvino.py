"""Engine on OpenVINO's CPU plug-in, in float32, int8, or bfloat16 if the processor supports it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cvnet_engine.engine import machine
from cvnet_engine.engine.contract import Array, Closing, TensorSpec, check_feeds
from cvnet_engine.engine.errors import BackendError, backend_failure, import_library, one_line
from cvnet_engine.engine.machine import usable_cpus

WEIGHT_MAX = 64  # of int8, without VNNI: two products with bytes are added in 16 bits, 2 * 255 * 64 < 2^15
PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # ours -> OpenVINO's, for nodes that are not quantised


class OpenVinoEngine(Closing):
    """An `Engine` on OpenVINO's CPU plug-in."""

    def __init__(self, graph: Path, precision: str, threads: int) -> None:
        openvino = import_library("openvino", "OpenVINO", "openvino")
        options = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            # pinned engines with fewer threads would all share the first cores
            "ENABLE_CPU_PINNING": threads == usable_cpus(),
        }
        core = openvino.Core()
        try:
            source = core.read_model(str(graph))
            require_weights_that_fit(graph, source)
            model = core.compile_model(source, "CPU", options)
        except RuntimeError as error:
            message = f"{graph}: OpenVINO does not open it ({cause(error)}); build the bundle again"
            raise backend_failure(error, message) from error
        actual = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if actual != PRECISIONS[precision]:
            raise BackendError(
                f"{graph}: this processor computes in {actual} although {precision} was requested; "
                "build the bundle with --precision fp32"
            )
        self.inputs = {port.any_name: spec(port) for port in source.inputs}  # the compiled int8 model lacks some axes
        self.outputs = {port.any_name: spec(port) for port in source.outputs}
        self._request: Any = model.create_infer_request()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        check_feeds(feeds, self.inputs)
        try:
            self._request.infer({name: np.ascontiguousarray(array) for name, array in feeds.items()}, share_inputs=True)
        except RuntimeError as error:
            message = f"OpenVINO stopped ({cause(error)}); build the bundle again, or with another --backend"
            raise backend_failure(error, message) from error
        return {name: self._request.get_tensor(name).data.copy() for name in self.outputs}

    def close(self) -> None:
        self._request = None


def require_weights_that_fit(graph: Path, model: Any) -> None:
    """Check the int8 weights of a model against this processor.

    Raises:
        BackendError: products of 8-bit weights would overflow 16-bit sums on this processor.
    """
    if machine.adds_bytes_exactly():
        return
    constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    weights = [node.data for node in constants if node.get_element_type().get_type_name() == "i8"]
    if any(np.abs(weight.astype(np.int16)).max(initial=0) > WEIGHT_MAX for weight in weights):
        raise BackendError(f"{graph}: made for processors with VNNI, which this one lacks; build the bundle here")


def cause(error: RuntimeError) -> str:
    """Return the cause in an OpenVINO message, without the lines that name its source files."""
    lines = [line for line in str(error).splitlines() if not line.startswith(("Exception from ", "Check '"))]
    return one_line(" ".join(line.strip() for line in lines if line.strip()) or error)


def spec(port: Any) -> TensorSpec:
    """Return a port's dtype and shape. OpenVINO drops the names of free axes, so each gets a generated one."""
    axes = tuple(
        axis.get_length() if axis.is_static else f"{port.any_name}_{number}"
        for number, axis in enumerate(port.get_partial_shape())
    )
    return TensorSpec(np.dtype(port.get_element_type().to_dtype()).name, axes)
