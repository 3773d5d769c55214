"""Counted cost of a graph as it is: what its operators compute, and every tensor that one hands to another.

`benchmarks.latency.costs` counts what cannot but be computed and moved; this counts what a graph asks for when each
operator reads its inputs from memory and writes its output there. A compiler that fuses moves less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from benchmarks.latency.costs import Cost
from export.tensorrt_plan import elements, sized

VIEWS = frozenset({"Reshape", "Unsqueeze", "Squeeze", "Identity"})  # another shape of the same memory
Shape = tuple[int, ...]


def handed_on(graph: Path, shapes: Mapping[str, Shape]) -> float:
    """Bytes of all tensors that a graph's operators put out, for inputs of these shapes; each counted once."""
    return float(sum(size_bytes(node.outputs[0]) for node in computing(sized(graph, shapes))))


def graph_cost(graph: Path, shapes: Mapping[str, Shape]) -> Cost:
    """Operations of convolutions and matrix products, and bytes read and written by every operator."""
    nodes = computing(sized(graph, shapes))
    moved = [value for node in nodes for value in (*node.inputs, *node.outputs) if value is not None]
    return Cost(sum(map(flop, nodes)), float(sum(map(size_bytes, moved))))


def computing(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type not in VIEWS]


def size_bytes(value: ir.Value) -> int:
    return elements(value) * (value.dtype.itemsize if value.dtype else 4)


def flop(node: ir.Node) -> float:
    """Operations of a node, a multiplication and an addition being two; 0 for what is not a matrix product."""
    if node.op_type not in ("Conv", "MatMul", "Gemm"):
        return 0.0
    first, second = node.inputs[:2]
    assert first is not None
    assert second is not None
    if node.op_type == "Conv":
        _, *window = sizes(second)  # (C', C, k, k)
        return 2.0 * elements(node.outputs[0]) * math.prod(window)
    return 2.0 * elements(node.outputs[0]) * sizes(first)[-1]


def sizes(value: ir.Value) -> list[int]:
    return [int(size) for size in value.shape or ()]
