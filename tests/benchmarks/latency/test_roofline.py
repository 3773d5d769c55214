"""Counted costs of a small graph, and the times that they come to."""

import onnx
import pytest
from onnx import TensorProto, helper

from cvnet_engine.benchmarks.latency.costs import Cost
from cvnet_engine.benchmarks.latency.graph_costs import NodeCost, node_costs
from cvnet_engine.benchmarks.latency.roofline import GPUS, Gpu, Stage, table


def small_graph(folder):
    """x (n, 3, h, w) -> a 3x3 convolution to 4 channels -> two views -> ReLU."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, "hw"])
    weight = helper.make_tensor("weight", TensorProto.FLOAT, (4, 3, 3, 3), [0.5] * 108)
    shape = helper.make_tensor("shape", TensorProto.INT64, (3,), [0, 4, -1])
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["a"], pads=[1] * 4),
        helper.make_node("Reshape", ["a", "shape"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "small", [x], [y], [weight, shape])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "x.onnx")
    return folder / "x.onnx"


def test_every_operator_but_a_view_is_counted(tmp_path):
    convolution, relu = node_costs(small_graph(tmp_path), {"x": (2, 3, 8, 5)})
    assert convolution.cost == Cost(2 * 2 * 4 * 40 * 27, 4 * (2 * 3 * 40 + 108 + 2 * 4 * 40))
    assert convolution.written_bytes == relu.written_bytes == 4 * 2 * 4 * 40
    assert relu.cost == Cost(0.0, 2 * 4 * 2 * 4 * 40)
    assert not relu.half


def test_an_operator_takes_the_longer_of_arithmetic_and_traffic():
    gpu = Gpu("a GPU", fp32_flops=10.0, fp16_flops=100.0, bytes_per_s=5.0)
    nodes = [NodeCost(Cost(1000.0, 5.0), 0, half=True), NodeCost(Cost(10.0, 20.0), 0, half=False)]
    stage = Stage("two", nodes, times=3)
    assert stage.alone_s(gpu) == pytest.approx(3 * (10 + 4))
    assert stage.arithmetic_s(gpu) == pytest.approx(3 * (10 + 1))
    assert (stage.flop, stage.bytes) == (3030.0, 75.0)


@pytest.mark.parametrize("gpu", GPUS)
def test_a_table_says_that_it_is_computed(gpu):
    stage = Stage("pair", [NodeCost(Cost(4e10, 1e9), 0, half=True)])
    shown = table(GPUS[gpu], {"fp16": [stage]})
    assert "not measured" in shown.title
    (row,) = shown.rows
    assert row[:4] == ("pair", "fp16", "40", "1000")
    assert float(row[4]) >= float(row[5]) > 0
