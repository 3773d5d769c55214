"""Reduced precision, decided in the ONNX graph and nowhere else: float16 with float32 islands, and int8 for TensorRT.

TensorRT compiles strongly typed networks: the types in the graph are the types it computes with. So is it with
ONNX Runtime, which makes both results testable on a CPU.

float16. Types are chosen by operator, as safe by default: what is not named here stays float32.

- `MATRIX_OPS` are float16: convolutions and matrix products, where the time goes. Their inputs are images,
  activations behind a norm, or unit vectors; hardware adds their products up in float32.
- `CARRIERS` only move, pick or blend values. They are float16 where what they read is, or where all that reads
  them is, so that a value is cast once and at its source.
- An `Add` is float16 where both summands are.
- `NORMS` are float16 where what they read is: how InstanceNormalization adds up inside is the runtime's affair
  (docs/decisions/graphs-and-precision.md), and BatchNormalization is only its scale and shift behind it.
- A `Clip` is float16 where what it reads is and float16 holds its bound in full: SuperGlobal's floor of activations is
  such a one, the bounds of GeM and of norms are not.
- All else is an island in float32: GeM (Clip, Pow, ReduceMean, Pow: its cube overflows float16 from 41 on), the
  whitening behind it (a vector an image: nothing to gain), L2 norms and their epsilons (1e-12 would be 0), the final
  mean, the classifier and the softmax.

Casts stand only where an edge of the graph changes type, one per value; graph inputs and outputs stay float32, but for
the maps of keys that a plan takes (`take_half_keys`).

int8. Symmetric QuantizeLinear/DequantizeLinear pairs, zero points 0, as TensorRT's explicit quantisation wants
them: weights stored as int8 with a scale per output channel, activations with one scale each from calibration.
Every convolution of the backbone is quantised but the stem, whose three channels leave int8 nothing to gain while
its rounding reaches every later layer; so are the sums' shortcuts, which lets TensorRT fuse a block's last
convolution, sum and ReLU. Biases, GeM, whitening and norms stay float32. The reranker is left to float16: its
correlations are products of unit vectors that all fall into a small part of an int8 range.
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
HALF_MIN = float(np.finfo(np.float16).tiny)  # 6e-5, the smallest number with all its digits
HALF_MAX = float(np.finfo(np.float16).max)  # 65504
INT8_MAX = 127  # -128 is left out: the range is symmetric


def to_fp16(source: Path, target: Path) -> None:
    """Write the float32 graph `source` to `target` with float16 arithmetic and float32 islands, as described above.

    Raises:
        ExportError: a graph with branches or loops, or a weight that float16 cannot hold.
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
    """Write the float32 backbone graph `source` to `target` with int8 convolutions, as described above.

    Args:
        calibration: normalised images (B, 3, H, W) float32, of any sizes, like those that will be described.
        weight_max: the largest integer that a weight becomes.

    Raises:
        ExportError: no calibration images, a graph that is no backbone, or one with branches or loops.
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
    """The largest integer that a weight of an int8 graph may be for this processor."""
    return INT8_MAX if machine.adds_bytes_exactly() else WEIGHT_MAX


def take_half_keys(source: Path, target: Path) -> None:
    """Write a reranker's graph `source` to `target` with the keys' maps as float16 inputs, as galleries store them.

    What computes in float32 reads them through a cast at the graph's head. The query's maps are fed once a shortlist.
    """
    model = read(source)
    for value in model.graph.inputs:
        if str(value.name).startswith("key_"):
            value.dtype = HALF
            readers = [use for use in value.uses() if use.node.op_type != "Shape"]
            for node in [
                use.node for use in readers if use.node.op_type == "Cast"
            ]:  # to float16, from what was float32
                node.outputs[0].replace_all_uses_with(value)
                model.graph.remove(node, safe=True)
            if wide := [use for use in readers if use.node.op_type != "Cast"]:
                restored = add_cast(model.graph, value, FLOAT)
                for use in wide:
                    use.node.replace_input_with(use.idx, restored)
    write(model, target)


def read(source: Path) -> ir.Model:
    """A graph with the type of every value known.

    Raises:
        ExportError: the graph has branches or loops, whose captured values are not followed here.
    """
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load(source)))
    for node in model.graph:
        if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
            raise ExportError(f"{source}: {node.op_type} holds a graph of its own; expected none in a graph to convert")
    return model


def write(model: ir.Model, target: Path) -> None:
    initializers = model.graph.initializers
    for name in [name for name, value in initializers.items() if not value.uses()]:
        del initializers[name]
    ir.save(model, target)


# float16


def half_nodes(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that compute in float16."""
    readers_half: set[ir.Node] = set()  # matrix products, and carriers whose every reader is in this set
    for node in reversed(graph):
        uses = node.outputs[0].uses()
        carries = node.op_type in CARRIERS and is_float(node.outputs[0]) and not node.outputs[0].is_graph_output()
        if node.op_type in MATRIX_OPS or (carries and uses and all(use.node in readers_half for use in uses)):
            readers_half.add(node)
    half: set[ir.Node] = set()
    for node in graph:
        sources = [value.producer() for _, value in float_inputs(node)]
        follows = (node.op_type in CARRIERS or node.op_type == "Add") and is_float(node.outputs[0])
        stays = (node.op_type in NORMS or is_floor(node)) and sources[0] in half
        if node in readers_half or stays or (follows and all(source in half for source in sources)):
            half.add(node)
    return half


def is_floor(node: ir.Node) -> bool:
    """Whether a node clips from below at a bound that float16 holds."""
    if node.op_type != "Clip" or node.inputs[1] is None or node.inputs[1].const_value is None:
        return False
    return float(node.inputs[1].const_value.numpy()) >= HALF_MIN


def is_float(value: ir.Value) -> bool:
    return value.dtype in (FLOAT, HALF)


def float_inputs(node: ir.Node) -> list[tuple[int, ir.Value]]:
    """The inputs that follow the node's type, by position; of a Resize only the first, its scales being float32."""
    inputs = node.inputs[:1] if node.op_type == "Resize" else node.inputs
    return [(index, value) for index, value in enumerate(inputs) if value is not None and is_float(value)]


def half_weight(graph: ir.Graph, value: ir.Value) -> ir.Value:
    assert value.const_value is not None
    weight = value.const_value.numpy()
    if np.abs(weight).max(initial=0.0) > HALF_MAX:
        raise ExportError(
            f"weight {value.name!r} reaches {np.abs(weight).max():.1e}; float16 holds {HALF_MAX:.0f}: build in fp32"
        )
    return add_initializer(graph, f"{value.name}_half", weight.astype(np.float16))


def add_cast(graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """`value` as another type, computed right behind what computes it."""
    name = f"{value.name}_as_{dtype.name.lower()}"
    cast = ir.node("Cast", [value], {"to": dtype}, name=f"node_{name}", outputs=[typed_value(name, dtype, value.shape)])
    insert_behind(graph, value, [cast])
    return cast.outputs[0]


# int8


def shortcuts(graph: ir.Graph) -> list[tuple[ir.Node, int]]:
    """The sums of residual blocks, each with the position of the summand that goes past the block's convolutions.

    That is the block's input; where a convolution adapts it, the output of that one, which the second summand is.
    """
    found = []
    for node in graph:
        if node.op_type == "Add" and is_float(node.outputs[0]):
            producers = [value.producer() if value is not None else None for value in node.inputs]
            if any(producer is not None and producer.op_type == "Conv" for producer in producers):
                found.append((node, 1))
    return found


def absolute_peaks(source: Path, names: Sequence[str], calibration: Iterable[Array]) -> list[float]:
    """The largest absolute value that each named tensor takes over the calibration images.

    Raises:
        ExportError: no images, or none that gives finite values.
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
        raise ExportError(f"{source}: {len(peaks)} calibration images gave no finite ranges; give some ordinary photos")
    return list(peaks.max(axis=0))


def with_peaks(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model with an output NAME_peak for each named tensor: the maximum of its absolute values."""
    for name in names:
        model.graph.node.append(onnx.helper.make_node("Abs", [name], [f"{name}_abs"]))
        model.graph.node.append(onnx.helper.make_node("ReduceMax", [f"{name}_abs"], [f"{name}_peak"], keepdims=0))
        model.graph.output.append(onnx.helper.make_tensor_value_info(f"{name}_peak", onnx.TensorProto.FLOAT, []))
    return model


def add_quantisation(graph: ir.Graph, value: ir.Value, peak: float) -> ir.Value:
    """`value` rounded to int8 and back, the range -peak..peak on -127..127."""
    scale = add_initializer(graph, f"{value.name}_scale", np.array(max(peak, 1e-6) / INT8_MAX, np.float32))
    zero = add_initializer(graph, f"{value.name}_zero_point", np.array(0, np.int8))
    quantised = typed_value(f"{value.name}_int8", ir.DataType.INT8, value.shape)
    restored = typed_value(f"{value.name}_restored", FLOAT, value.shape)
    nodes = [
        ir.node("QuantizeLinear", [value, scale, zero], name=f"node_{quantised.name}", outputs=[quantised]),
        ir.node("DequantizeLinear", [quantised, scale, zero], name=f"node_{restored.name}", outputs=[restored]),
    ]
    insert_behind(graph, value, nodes)
    return restored


def quantised_weight(graph: ir.Graph, convolution: ir.Node, weight_max: int) -> ir.Value:
    """The convolution's weight (C', C, k, k) as int8 behind a DequantizeLinear, a scale per output channel.

    Convolutions of one weight, those of two passes through one trunk, share what is stored.
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


# both


def input_of(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def typed_value(name: str, dtype: ir.DataType, shape: ir.Shape | None) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=shape)


def add_initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """A constant by name; the one that is there, where it was added before."""
    if name in graph.initializers:
        return graph.initializers[name]
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def insert_behind(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Put nodes that read `value` right behind what computes it, or first where it is an input of the graph."""
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], nodes)
    else:
        graph.insert_after(producer, nodes)
