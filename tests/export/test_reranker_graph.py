"""The reranker's graph stays small: layers as a real parser counts them, transposes, bytes between nodes."""

import math
from collections import Counter

import onnx
import pytest

from cvnet_engine.benchmarks.latency.costs import pair
from cvnet_engine.engine.backends.tensorrt import error_log
from cvnet_engine.engine.geometry import MAP_DIM, unit_map_sizes
from cvnet_engine.export.precision import take_half_keys, to_fp16
from cvnet_engine.export.tensorrt_plan import elements, parse, sized

MAPS = unit_map_sizes((64, 48))
PAIR = {f"{side}_{s}": (1, MAP_DIM, *size) for side in ("query", "key") for s, size in enumerate(MAPS)}
TRACED_BYTES = {
    "fp32": 1.2731e9,
    "fp16": 0.9198e9,
}  # handed on by the graph that PyTorch's exporter made


def computing_nodes(graph):
    """Operators of a graph for one pair, without those that only give memory another shape."""
    views = ("Reshape", "Unsqueeze", "Squeeze", "Identity")
    return [node for node in sized(graph, PAIR).graph if node.op_type not in views]


def flop(node):
    """Floating-point operations of a convolution or matrix product; 0 for other operators."""
    if node.op_type not in ("Conv", "MatMul", "Gemm"):
        return 0
    first, second = node.inputs[:2]
    products = math.prod(second.shape[1:]) if node.op_type == "Conv" else first.shape[-1]
    return 2 * elements(node.outputs[0]) * products


@pytest.fixture(scope="module")
def graphs(bundle, tmp_path_factory):
    """Precision -> the graph that a plan is made of."""
    folder = tmp_path_factory.mktemp("reranker")
    to_fp16(bundle / "reranker.onnx", folder / "half.onnx")
    for precision, source in (("fp32", bundle / "reranker.onnx"), ("fp16", folder / "half.onnx")):
        take_half_keys(source, folder / f"{precision}.onnx")
    return {precision: folder / f"{precision}.onnx" for precision in ("fp32", "fp16")}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_layers_of_the_parsed_network(graphs, precision):
    tensorrt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    log = error_log(tensorrt)
    builder = tensorrt.Builder(log)
    assert parse(tensorrt, builder, log, graphs[precision]).num_layers <= 400


def test_nodes(graphs):
    counts = Counter(node.op_type for node in onnx.load(graphs["fp32"]).graph.node)
    assert counts["Transpose"] == 2  # of the keys' maps
    assert counts["Conv"] == 18
    assert counts["Add"] == 9  # a layer's two halves
    assert not {"Mul", "Div", "Sub"} & set(counts)  # no arithmetic on shapes


@pytest.mark.parametrize(("precision", "share"), [("fp32", 0.73), ("fp16", 0.506)])
def test_bytes_handed_on(graphs, precision, share):
    outputs = [node.outputs[0] for node in computing_nodes(graphs[precision])]
    written = sum(elements(output) * output.dtype.itemsize for output in outputs)
    assert written <= share * TRACED_BYTES[precision]


def test_operations_are_those_of_the_formula(graphs):
    """The classifier is all that the formula leaves out."""
    counted = sum(flop(node) for node in computing_nodes(graphs["fp32"]))
    assert counted == pytest.approx(pair((1024, 768), (1024, 768)).flop, rel=1e-4)
