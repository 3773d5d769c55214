"""Counted cost of a graph as it is, operator by operator: what it computes, and what it reads and writes.

`benchmarks.latency.costs` counts what cannot but be computed and moved; this counts what a graph asks for when every
operator reads its inputs from memory and writes its output there. A compiler that fuses moves less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from cvnet_engine.benchmarks.latency.costs import FLOAT, Cost
from cvnet_engine.export.tensorrt_plan import elements, sized

VIEWS = frozenset({"Reshape", "Unsqueeze", "Squeeze", "Identity"})  # another shape of the same memory
Shape = tuple[int, ...]


@dataclass(frozen=True)
class NodeCost:
    """Of one operator: `cost` has what it reads and writes; `half` says that it puts out float16."""

    cost: Cost
    written_bytes: int
    half: bool


def node_costs(graph: Path, shapes: Mapping[str, Shape]) -> list[NodeCost]:
    """The cost of every operator of a graph but the views, for inputs of these shapes."""
    return [node_cost(node) for node in sized(graph, shapes).graph if node.op_type not in VIEWS]


def node_cost(node: ir.Node) -> NodeCost:
    output = node.outputs[0]
    read = sum(size_bytes(value) for value in node.inputs if value is not None)
    cost = Cost(flop(node), float(read + size_bytes(output)))
    return NodeCost(cost, size_bytes(output), output.dtype == ir.DataType.FLOAT16)


def size_bytes(value: ir.Value) -> int:
    return elements(value) * int(value.dtype.itemsize if value.dtype else FLOAT)


def flop(node: ir.Node) -> float:
    """Operations of a convolution or matrix product, a multiplication and an addition being two; 0 of all else."""
    if node.op_type not in ("Conv", "MatMul", "Gemm"):
        return 0.0
    first, second = node.inputs[:2]
    assert first is not None
    assert second is not None
    products = math.prod(sizes(second)[1:]) if node.op_type == "Conv" else sizes(first)[-1]
    return 2.0 * elements(node.outputs[0]) * products


def sizes(value: ir.Value) -> list[int]:
    """A value's shape, which is fixed."""
    fixed = [size for size in value.shape or () if isinstance(size, int)]
    assert value.shape is None or len(fixed) == len(value.shape)
    return fixed
