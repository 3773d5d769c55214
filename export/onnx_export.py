"""Export of one graph from PyTorch to an ONNX file with dynamic axes."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx.utils
import onnx_ir as ir
import torch

from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine.errors import ExportError
from cvnet_engine.export import reranker_graph
from cvnet_engine.export.graphs import Graph

# 21 would emit GroupNormalization, which TensorRT before 10.9 rejects and ONNX Runtime decomposes again on the CPU
OPSET = 20


def export(graph: Graph, model: CVNet, file: Path) -> None:
    """Write `graph` of `model` as ONNX: traced, or built operator by operator if it has no module.

    Raises:
        ExportError: PyTorch cannot trace or translate it.
    """
    if graph.module is None:
        logits, score = graph.outputs
        outputs = {logits: ("batch", 2), score: ("batch",)}
        ir.save(reranker_graph.build(model.reranker, graph.inputs, outputs, OPSET), file)
        return
    dynamic = tuple({i: a for i, a in enumerate(axes) if isinstance(a, str)} for axes in graph.inputs.values())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # meant for the exporter's developers
        try:
            program = torch.onnx.export(
                graph.module(model).eval(),
                example(graph),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_shapes=dynamic,
                verbose=False,
            )
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ExportError(
                f"graph {graph.name!r}: PyTorch's exporter failed ({reason}); report it with 'cvnet-engine doctor'"
            ) from error
    assert program is not None
    program.save(file)


def cut(whole: Path, graph: Graph, file: Path) -> None:
    """Write `graph` as the part of the exported graph `whole` that computes its outputs."""
    onnx.utils.extract_model(str(whole), str(file), list(graph.inputs), list(graph.outputs))


def example(graph: Graph) -> tuple[torch.Tensor, ...]:
    """Return inputs to trace with. Dynamic axes all differ and none is 1, or the tracer would specialise on them."""
    sizes: dict[str, int] = {}
    for axes in graph.inputs.values():
        for axis in axes:
            if isinstance(axis, str) and axis not in sizes:
                sizes[axis] = 2 if axis == "batch" else graph.trace_size + len(sizes)
    shapes = ([sizes[a] if isinstance(a, str) else a for a in axes] for axes in graph.inputs.values())
    return tuple(torch.rand(shape) for shape in shapes)
