"""ONNX graph of the reranker, built operator by operator because a traced module is mostly shape arithmetic.

`export.reranker` explains the formula. Here the correlation and all later tensors are channels first, in two views of
the same memory: `[B, C, K, hq, wq]`, where a kernel (1, k, k) convolves over the query's positions, and
`[B, C, hk, wk, Q]`, where a kernel (k, k, 1) convolves over the key's. So only the keys' maps are transposed, and
sizes are read from tensors instead of computed. Three operators each replace several: a max pool with window 1 and
stride 2 selects every other position, InstanceNormalization over groups is GroupNorm without its scale and shift, and
BatchNormalization applies that scale and shift.

Shape legend: B keys (candidates), C channels, hq wq query positions and hk wk key positions of the current layer,
Q = hq·wq, K = hk·wk; i query scale, j key scale; /2 rounds up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from torch import Tensor, nn

from cvnet_engine.cvnet.reranker import GROUPS, CenterPivotConv4d, Reranker
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.geometry import AREA_SCALES, MAP_DIM
from cvnet_engine.export.reranker import key_major

Axes = Sequence[int | str]  # a number for a fixed axis, a name for a dynamic one

SCALES = len(AREA_SCALES)
IR_VERSION = 10  # as PyTorch's exporter writes


class Views(NamedTuple):
    """Shapes of the two views of a tensor, as integer tensors of the graph."""

    query: ir.Value  # [0, C or 0, -1, hq, wq]
    key: ir.Value  # [0, C or 0, hk, wk, -1]


def build(reranker: Reranker, inputs: Mapping[str, Axes], outputs: Mapping[str, Axes], opset: int) -> ir.Model:
    """Build the graph of one query against a batch of keys whose maps have equal size.

    Args:
        inputs: name -> axes of the query's three L2-normalised maps, then the keys'.
        outputs: name -> axes of the logits and the score.
    """
    maps = [typed(name, axes) for name, axes in inputs.items()]
    graph = RerankerGraph([], [])
    results = graph.scores(reranker, maps[:SCALES], maps[SCALES:])
    for value, (name, axes) in zip(results, outputs.items(), strict=True):
        value.name, value.shape, value.type = name, ir.Shape(axes), ir.TensorType(ir.DataType.FLOAT)
    built = ir.Graph(
        maps, results, nodes=graph.nodes, initializers=graph.constants, opset_imports={"": opset}, name="reranker"
    )
    return ir.Model(built, ir_version=IR_VERSION)


def typed(name: str, axes: Axes) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(axes), type=ir.TensorType(ir.DataType.FLOAT))


@dataclass
class RerankerGraph:
    """A graph under construction: nodes in execution order, and constants."""

    nodes: list[ir.Node]
    constants: list[ir.Value]

    def scores(
        self, reranker: Reranker, query_maps: Sequence[ir.Value], key_maps: Sequence[ir.Value]
    ) -> tuple[ir.Value, ir.Value]:
        """Return logits (B, 2) and pair scores (B,), the softmax's second class."""
        learner = reranker.learner
        blocks = (learner.block1, learner.block2, learner.block3, learner.block4)
        first, *convs = [m for block in blocks for m in block if isinstance(m, CenterPivotConv4d)]
        norm, *norms = [m for block in blocks for m in block if isinstance(m, nn.GroupNorm)]
        planes = self.first_planes(first, query_maps, key_maps)
        views = self.views(*planes)
        x = self.normalised_sum(*planes, views, norm)
        for conv, following in zip(convs, norms, strict=True):
            planes = self.planes(x, norm, conv, views)
            views = views if conv.stride == 1 else self.views(*planes)
            norm = following
            x = self.normalised_sum(*planes, views, norm)
        x = self.scaled(x, norm)
        mean = self.op("ReduceMean", x, self.integers(2), keepdims=0)  # (B, 128)
        hidden, _, classes = learner.mlp
        logits = self.linear(self.op("Relu", self.linear(mean, hidden)), classes)
        score = self.op("Gather", self.op("Softmax", logits, axis=1), self.constant(np.array(1)), axis=1)
        return logits, score

    def first_planes(
        self, conv: CenterPivotConv4d, query_maps: Sequence[ir.Value], key_maps: Sequence[ir.Value]
    ) -> tuple[ir.Value, ir.Value]:
        """Compute block 1's two halves from the maps: [B, 16, K/4, hq/2, wq/2] and [B, 16, hk/2, wk/2, Q/4]."""
        query, key = self.full_size(query_maps), self.full_size(key_maps)  # (1 or B, 3·256, h, w)
        query_size, key_size = (self.op("Shape", maps[-1], start=2) for maps in (query_maps, key_maps))
        views = self.views_of(query_size, key_size, channels=SCALES**2)  # 3·j + i
        at_even_keys = self.correlation(self.even(key, 2), query)  # (B, 3j, 3i, K/4, Q)
        at_even_queries = self.correlation(key, self.even(query, 2))  # (B, 3j, 3i, K, Q/4)
        over_query = self.conv(self.op("Reshape", at_even_keys, views.query), key_major(conv.conv1), "query")
        over_key = self.conv(self.op("Reshape", at_even_queries, views.key), key_major(conv.conv2), "key")
        return over_query, over_key

    def full_size(self, maps: Sequence[ir.Value]) -> ir.Value:
        """Resize the three maps to the last one's size and concatenate them: (B, 3·256, h, w)."""
        *smaller, full = maps
        size = self.op("Shape", full, start=2)
        bilinear = {"axes": [2, 3], "mode": "linear", "coordinate_transformation_mode": "align_corners"}
        return self.op("Concat", *(self.op("Resize", m, None, None, size, **bilinear) for m in smaller), full, axis=1)

    def correlation(self, key: ir.Value, query: ir.Value) -> ir.Value:
        """Return the correlation, after ReLU, of every key position with every query position: (B, 3j, 3i, K, Q)."""
        columns = [self.op("Reshape", m, self.integers(0, SCALES, MAP_DIM, -1)) for m in (key, query)]
        rows = self.op("Transpose", columns[0], perm=[0, 1, 3, 2])  # (B, 3j, K, 256)
        rows = self.op("Reshape", rows, self.integers(0, SCALES, 1, -1, MAP_DIM))
        return self.op("Relu", self.op("MatMul", rows, columns[1]))

    def planes(
        self, x: ir.Value, norm: nn.GroupNorm, conv: CenterPivotConv4d, views: Views
    ) -> tuple[ir.Value, ir.Value]:
        """Return a layer's two halves, [B, C', K/s², hq/s, wq/s] and [B, C', hk/s, wk/s, Q/s²].

        Args:
            x: the previous layer's groups at mean 0 and variance 1, to which the scale and shift of `norm` are applied
                first; with stride 2 only at the positions that the layer reads.
        """
        x = x if conv.stride == 2 else self.scaled(x, norm)
        by_query, by_key = (self.op("Reshape", x, view) for view in views)
        if conv.stride == 2:
            even_keys, even_queries = self.even(by_key, 3, first=0), self.even(by_query, 3, first=1)
            by_query = self.op("Reshape", self.scaled(even_keys, norm), views.query)
            by_key = self.op("Reshape", self.scaled(even_queries, norm), views.key)
        return self.conv(by_query, conv.conv1, "query"), self.conv(by_key, conv.conv2, "key")

    def even(self, x: ir.Value, rank: int, first: int = 0) -> ir.Value:
        """Select every other position along two of the `rank` axes after the channels, from axis `first` on."""
        strides = [2 if first <= axis < first + 2 else 1 for axis in range(rank)]
        return self.op("MaxPool", x, kernel_shape=[1] * rank, strides=strides)

    def conv(self, x: ir.Value, conv: nn.Conv2d, side: str) -> ir.Value:
        """Apply a 2D convolution over one side's positions ('query' or 'key'), in that side's view."""
        (kernel, _), (stride, _) = conv.kernel_size, conv.stride

        def shaped(along: int, across: int) -> list[int]:
            return [across, along, along] if side == "query" else [along, along, across]

        weight = self.tensor(conv.weight.reshape(*conv.weight.shape[:2], *shaped(kernel, 1)))
        pads = shaped(kernel // 2, 0)
        return self.op("Conv", x, weight, self.tensor(conv.bias), strides=shaped(stride, 1), pads=pads * 2)

    def normalised_sum(self, over_query: ir.Value, over_key: ir.Value, views: Views, norm: nn.GroupNorm) -> ir.Value:
        """Add a layer's halves and normalise each group to mean 0 and variance 1: [B, C, K·Q]."""
        x = self.op("Add", over_query, self.op("Reshape", over_key, views.query))
        groups = self.op("Reshape", x, self.integers(0, GROUPS, -1))
        unit, none = self.filled(1, GROUPS), self.filled(0, GROUPS)
        x = self.op("InstanceNormalization", groups, unit, none, epsilon=norm.eps)
        return self.op("Reshape", x, self.integers(0, norm.num_channels, -1))

    def scaled(self, x: ir.Value, norm: nn.GroupNorm) -> ir.Value:
        """Apply the norm's scale and shift per channel, and ReLU: [B, C, ...]."""
        none, unit = self.filled(0, norm.num_channels), self.filled(1, norm.num_channels)  # mean and variance
        weight, bias = self.tensor(norm.weight), self.tensor(norm.bias)
        return self.op("Relu", self.op("BatchNormalization", x, weight, bias, none, unit, epsilon=0.0))

    def linear(self, x: ir.Value, layer: nn.Module) -> ir.Value:
        assert isinstance(layer, nn.Linear)
        return self.op("Gemm", x, self.tensor(layer.weight), self.tensor(layer.bias), transB=1)

    # shapes

    def views(self, over_query: ir.Value, over_key: ir.Value) -> Views:
        """Return the views of a layer's output from its two halves."""
        return self.views_of(self.op("Shape", over_query, start=3), self.op("Shape", over_key, start=2, end=4))

    def views_of(self, query: ir.Value, key: ir.Value, channels: int = 0) -> Views:
        """Return the views of a tensor with these positions; `channels` 0 keeps the tensor's number."""
        return Views(
            self.op("Concat", self.integers(0, channels, -1), query, axis=0),
            self.op("Concat", self.integers(0, channels), key, self.integers(-1), axis=0),
        )

    # nodes and constants

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        name = f"{op_type}_{len(self.nodes)}"
        node = ir.node(op_type, inputs, attributes, name=name, outputs=[ir.Value(name=name.lower())])
        self.nodes.append(node)
        return node.outputs[0]

    def integers(self, *numbers: int) -> ir.Value:
        return self.constant(np.array(numbers, np.int64))

    def filled(self, number: float, length: int) -> ir.Value:
        return self.constant(np.full(length, number, np.float32))

    def tensor(self, parameter: Tensor | None) -> ir.Value:
        assert parameter is not None
        return self.constant(parameter.detach().numpy())

    def constant(self, array: Array) -> ir.Value:
        name = f"constant_{len(self.constants)}"
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        self.constants.append(value)
        return value
