"""Conversion of ONNX graphs to reduced precision: float16 with parts in float32, and int8 for TensorRT.

Precision is decided in the graph alone. TensorRT compiles strongly typed networks, so it computes in the graph's types.
ONNX Runtime does too, which makes both conversions testable on a CPU.

float16. The type is chosen by operator. Operators that are not listed stay float32.

- `MATRIX_OPS`, convolutions and matrix products, are float16: they take most of the time. Their inputs are images,
  normalised activations or unit vectors, and hardware accumulates their products in float32.
- `CARRIERS` only move, select or interpolate values. They are float16 if all their inputs are, or if all their readers
  are, so that a value is cast once and at its source.
- An `Add` is float16 if both summands are.
- `NORMS` are float16 if their input is. The runtime decides how InstanceNormalization accumulates
  (docs/decisions/graphs-and-precision.md), and BatchNormalization is only the scale and shift after it.
- A `Clip` is float16 if its input is and its lower bound is a normal float16 number. SuperGlobal's lower bound of
  activations is; the bounds in GeM and in norms are not.
- Everything else is float32: GeM (Clip, Pow, ReduceMean, Pow: its cube overflows float16 from 41 on), the whitening
  (one vector per image, so float16 would save nothing), L2 norms and their epsilons (1e-12 is 0 in float16), the final
  mean, the classifier and the softmax.

Each value is cast at most once per type. Graph inputs and outputs stay float32, except for the candidates' maps of
TensorRT plans (`take_half_keys`).

int8. Symmetric QuantizeLinear/DequantizeLinear pairs with zero points 0, as TensorRT's explicit quantisation requires.
Weights are stored as int8 with a scale per output channel; activations have one scale per tensor, from calibration.
All convolutions of the backbone are quantised except the stem: its three input channels gain nothing, and its rounding
error would reach every later layer. Shortcuts are quantised too, so that TensorRT fuses a block's last convolution,
sum and ReLU. Biases, GeM, whitening and norms stay float32. The reranker has no int8 graph and runs in float16 (fp32 on
some backends): its correlations are products of unit vectors, which use only a small part of an int8 range.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from cvnet_engine.engine import machine
from cvnet_engine.engine.backends.onnxruntime import import_onnxruntime
from cvnet_engine.engine.backends.openvino import WEIGHT_MAX
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import ExportError
from cvnet_engine.engine.machine import usable_cpus

MATRIX_OPS = frozenset({"Conv", "MatMul"})
CARRIERS = frozenset({"Relu", "MaxPool", "Resize", "Reshape", "Transpose", "Slice", "Concat", "Squeeze", "Unsqueeze"})
NORMS = frozenset({"InstanceNormalization", "BatchNormalization"})
FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
HALF_MIN = float(np.finfo(np.float16).tiny)  # 6e-5, the smallest normal number
HALF_MAX = float(np.finfo(np.float16).max)  # 65504
INT8_MAX = 127  # -128 is not used, because the range is symmetric


def to_fp16(source: Path, target: Path) -> None:
    """Write the float32 graph `source` to `target` with float16 arithmetic, as the module docstring describes.

    Raises:
        ExportError: the graph has branches or loops, or a weight too large for float16.
    """
    model = read(source)
    graph = model.graph
    half = half_nodes(graph)
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def as_type(value: ir.Value, dtype: ir.DataType) -> ir.Value:
        if (value, dtype) not in casts:
            casts[value, dtype] = half_weight(graph, value) if value.is_initializer() else add_cast(graph, value, dtype)
        return casts[value, dtype]

    for node in list(graph):
        want = HALF if node in half else FLOAT
        for index, value in float_inputs(node):
            if want != (HALF if value.producer() in half else FLOAT):
                node.replace_input_with(index, as_type(value, want))
    for position, output in enumerate(graph.outputs):
        if output.producer() in half:
            graph.outputs[position] = as_type(output, FLOAT)
            output.name, graph.outputs[position].name = f"{output.name}_half", output.name
    for node in half:
        node.outputs[0].dtype = HALF
    write(model, target)


def to_int8(source: Path, target: Path, calibration: Iterable[Array], weight_max: int = INT8_MAX) -> None:
    """Write the float32 backbone graph `source` to `target` with int8 convolutions, as the module docstring describes.

    Args:
        calibration: normalised images (B, 3, H, W) float32 of any size, similar to the images to be indexed.
        weight_max: largest integer that a weight may take.

    Raises:
        ExportError: no calibration images, or the graph is not a backbone, or it has branches or loops.
    """
    model = read(source)
    convolutions = [node for node in model.graph if node.op_type == "Conv"][1:]
    if not convolutions or [value.name for value in model.graph.inputs] != ["image"]:
        raise ExportError(f"{source}: not a backbone to quantise; expected convolutions that read an input 'image'")
    edges = [(node, 0) for node in convolutions] + shortcuts(model.graph)
    activations = list(dict.fromkeys(input_of(node, index) for node, index in edges))
    peaks = absolute_peaks(source, [str(value.name) for value in activations], calibration)
    ranges = zip(activations, peaks, strict=True)
    restored = {value: add_quantisation(model.graph, value, peak) for value, peak in ranges}
    for node, index in edges:
        node.replace_input_with(index, restored[input_of(node, index)])
    for node in convolutions:
        node.replace_input_with(1, quantised_weight(model.graph, node, weight_max))
    write(model, target)


def cpu_weight_max() -> int:
    """Return the largest integer that an int8 weight may take on this processor without overflow."""
    return INT8_MAX if machine.adds_bytes_exactly() else WEIGHT_MAX


def take_half_keys(source: Path, target: Path) -> None:
    """Write the reranker graph `source` to `target` with float16 inputs for candidates' maps, as galleries store them.

    Float32 operators read them through a cast. The query's maps stay float32, as they are copied once per shortlist.
    """
    model = read(source)
    for value in model.graph.inputs:
        if str(value.name).startswith("key_"):
            value.dtype = HALF
            readers = [use for use in value.uses() if use.node.op_type != "Shape"]
            casts = [use.node for use in readers if use.node.op_type == "Cast"]  # to float16, now redundant
            for node in casts:
                node.outputs[0].replace_all_uses_with(value)
                model.graph.remove(node, safe=True)
            if wide := [use for use in readers if use.node.op_type != "Cast"]:
                restored = add_cast(model.graph, value, FLOAT)
                for use in wide:
                    use.node.replace_input_with(use.idx, restored)
    write(model, target)


def read(source: Path) -> ir.Model:
    """Read a graph and infer the type of every value.

    Raises:
        ExportError: the graph has branches or loops, which are not supported because of their captured values.
    """
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load(source)))
    for node in model.graph:
        if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
            raise ExportError(f"{source}: {node.op_type} has a subgraph; expected none in a graph to convert")
    return model


def write(model: ir.Model, target: Path) -> None:
    initializers = model.graph.initializers
    for name in [name for name, value in initializers.items() if not value.uses()]:
        del initializers[name]
    ir.save(model, target)


# float16


def half_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes that compute in float16."""
    readers_half: set[ir.Node] = set()  # matrix products, and carriers whose readers are all in this set
    for node in reversed(graph):
        uses = node.outputs[0].uses()
        carries = node.op_type in CARRIERS and is_float(node.outputs[0]) and not node.outputs[0].is_graph_output()
        if node.op_type in MATRIX_OPS or (carries and uses and all(use.node in readers_half for use in uses)):
            readers_half.add(node)
    half: set[ir.Node] = set()
    for node in graph:
        sources = [value.producer() for _, value in float_inputs(node)]
        follows = (node.op_type in CARRIERS or node.op_type == "Add") and is_float(node.outputs[0])
        stays = (node.op_type in NORMS or has_normal_lower_bound(node)) and sources[0] in half
        if node in readers_half or stays or (follows and all(source in half for source in sources)):
            half.add(node)
    return half


def has_normal_lower_bound(node: ir.Node) -> bool:
    """Return True if the node is a Clip whose lower bound is a normal float16 number."""
    if node.op_type != "Clip" or node.inputs[1] is None or node.inputs[1].const_value is None:
        return False
    return float(node.inputs[1].const_value.numpy()) >= HALF_MIN


def is_float(value: ir.Value) -> bool:
    return value.dtype in (FLOAT, HALF)


def float_inputs(node: ir.Node) -> list[tuple[int, ir.Value]]:
    """Return the inputs that share the node's type, with their positions. The scales of a Resize are always float32."""
    inputs = node.inputs[:1] if node.op_type == "Resize" else node.inputs
    return [(index, value) for index, value in enumerate(inputs) if value is not None and is_float(value)]


def half_weight(graph: ir.Graph, value: ir.Value) -> ir.Value:
    assert value.const_value is not None
    weight = value.const_value.numpy()
    if np.abs(weight).max(initial=0.0) > HALF_MAX:
        raise ExportError(
            f"weight {value.name!r} reaches {np.abs(weight).max():.1e}; float16 holds {HALF_MAX:.0f}: "
            "build the bundle with --precision fp32"
        )
    return add_initializer(graph, f"{value.name}_half", weight.astype(np.float16))


def add_cast(graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """Insert a cast of `value` right after the node that computes it, and return the result."""
    name = f"{value.name}_as_{dtype.name.lower()}"
    cast = ir.node("Cast", [value], {"to": dtype}, name=f"node_{name}", outputs=[typed_value(name, dtype, value.shape)])
    insert_after(graph, value, [cast])
    return cast.outputs[0]


# int8


def shortcuts(graph: ir.Graph) -> list[tuple[ir.Node, int]]:
    """Return the sums of residual blocks, each with the input position of the shortcut.

    The shortcut is the second summand: the block's input, or its projection by a convolution.
    """
    found = []
    for node in graph:
        if node.op_type == "Add" and is_float(node.outputs[0]):
            producers = [value.producer() if value is not None else None for value in node.inputs]
            if any(producer is not None and producer.op_type == "Conv" for producer in producers):
                found.append((node, 1))
    return found


def absolute_peaks(source: Path, names: Sequence[str], calibration: Iterable[Array]) -> list[float]:
    """Return the largest absolute value of each named tensor over the calibration images.

    Raises:
        ExportError: no images, or an image that gives a value that is not finite.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = usable_cpus()
    session = ort.InferenceSession(
        with_peaks(onnx.load(source), names).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs = [f"{name}_peak" for name in names]
    peaks = np.array([session.run(outputs, {"image": images}) for images in calibration])  # (images, names)
    if not peaks.size or not np.isfinite(peaks).all():
        raise ExportError(
            f"{source}: {len(peaks)} calibration images gave no finite ranges; "
            "expected a --calibration folder of ordinary photos"
        )
    return list(peaks.max(axis=0))


def with_peaks(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Add an output NAME_peak for each named tensor: the maximum of its absolute values."""
    for name in names:
        model.graph.node.append(onnx.helper.make_node("Abs", [name], [f"{name}_abs"]))
        model.graph.node.append(onnx.helper.make_node("ReduceMax", [f"{name}_abs"], [f"{name}_peak"], keepdims=0))
        model.graph.output.append(onnx.helper.make_tensor_value_info(f"{name}_peak", onnx.TensorProto.FLOAT, []))
    return model


def add_quantisation(graph: ir.Graph, value: ir.Value, peak: float) -> ir.Value:
    """Quantise `value` to int8 and back, mapping -peak..peak to -127..127; return the result."""
    scale = add_initializer(graph, f"{value.name}_scale", np.array(max(peak, 1e-6) / INT8_MAX, np.float32))
    zero = add_initializer(graph, f"{value.name}_zero_point", np.array(0, np.int8))
    quantised = typed_value(f"{value.name}_int8", ir.DataType.INT8, value.shape)
    restored = typed_value(f"{value.name}_restored", FLOAT, value.shape)
    nodes = [
        ir.node("QuantizeLinear", [value, scale, zero], name=f"node_{quantised.name}", outputs=[quantised]),
        ir.node("DequantizeLinear", [quantised, scale, zero], name=f"node_{restored.name}", outputs=[restored]),
    ]
    insert_after(graph, value, nodes)
    return restored


def quantised_weight(graph: ir.Graph, convolution: ir.Node, weight_max: int) -> ir.Value:
    """Return the convolution's weight (C', C, k, k), stored as int8 with a scale per output channel and dequantised.

    Convolutions that share a weight (SuperGlobal's two passes) share the stored int8 weight.
    """
    value = input_of(convolution, 1)
    assert value.const_value is not None
    weight = value.const_value.numpy()
    scale = np.maximum(np.abs(weight).max(axis=(1, 2, 3)), 1e-12) / weight_max  # (C',)
    rounded = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
    inputs = [
        add_initializer(graph, f"{value.name}_int8", rounded),
        add_initializer(graph, f"{value.name}_scale", scale.astype(np.float32)),
        add_initializer(graph, f"{value.name}_zero_point", np.zeros(len(scale), np.int8)),
    ]
    restored = typed_value(f"{convolution.name}_weight", FLOAT, value.shape)
    node = ir.node("DequantizeLinear", inputs, {"axis": 0}, name=f"node_{restored.name}", outputs=[restored])
    graph.insert_before(convolution, node)
    return restored


# float16 and int8


def input_of(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def typed_value(name: str, dtype: ir.DataType, shape: ir.Shape | None) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=shape)


def add_initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """Return the constant of this name, added if missing."""
    if name in graph.initializers:
        return graph.initializers[name]
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def insert_after(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Insert nodes right after the node that computes `value`, or at the start for an input of the graph."""
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], nodes)
    else:
        graph.insert_after(producer, nodes)
