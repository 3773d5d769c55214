"""The tiny bundle: three graphs that run in no time, for tests of the program rather than of the model.

Their inputs and outputs are those of the real graphs; means of pixels stand in for the network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from cvnet_engine.benchmarks.methods.method import REFERENCE, Method
from cvnet_engine.engine.bundle import FORMAT, Bundle, GraphFile, Manifest, write_manifest
from cvnet_engine.engine.contract import Array, Closing, Engine
from cvnet_engine.engine.geometry import AREA_SCALES, DESCRIPTOR_DIM, GRAPH_NAMES, MAP_DIM
from cvnet_engine.engine.retrieval.engines import Engines

STRIDE_PX = 16
FLOAT = TensorProto.FLOAT


def write_bundle(folder: Path, seed: int = 0) -> Path:
    """A bundle whose weights are random numbers."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    to_descriptor, to_map = (rng.standard_normal((3, n)).astype(np.float32) for n in (DESCRIPTOR_DIM, MAP_DIM))
    nodes, constants = descriptor_nodes(to_descriptor)
    map_nodes, map_constants = feature_nodes(to_map)
    image = [("image", ["batch", 3, "height", "width"])]
    descriptor = [("descriptor", ["batch", DESCRIPTOR_DIM])]
    write_graph(folder / "descriptor.onnx", nodes, constants, image, descriptor)
    outputs = descriptor + side("map", "batch")
    write_graph(folder / "features.onnx", nodes + map_nodes, constants | map_constants, image, outputs)
    pair = side("query", 1) + side("key", "batch")
    nodes, constants = reranker_nodes()
    write_graph(folder / "reranker.onnx", nodes, constants, pair, [("logits", ["batch", 2]), ("score", ["batch"])])
    graphs = {name: graph_file(folder / f"{name}.onnx") for name in GRAPH_NAMES}
    digest = hashlib.sha256(to_descriptor.tobytes() + to_map.tobytes()).hexdigest()
    write_manifest(
        Manifest(
            format=FORMAT,
            depth=50,
            weights=f"tiny:{seed}",
            weights_digest=digest,
            trained=False,
            precision="fp32",
            graphs=graphs,
            versions={"onnx": onnx.__version__},
            parity={},
            timings_ms={},
            refused={},
            gpu=None,
            built="2026-01-01T00:00:00+00:00",
        ),
        folder,
    )
    return folder


def graph_file(file: Path) -> GraphFile:
    return GraphFile(file.name, hashlib.sha256(file.read_bytes()).hexdigest(), "onnxruntime", "fp32")


def side(name: str, batch: int | str) -> list[tuple[str, list[int | str]]]:
    """One side's maps (B, 256, h_s, w_s)."""
    return [(f"{name}_{s}", [batch, MAP_DIM, f"{name}_height_{s}", f"{name}_width_{s}"]) for s in range(3)]


def descriptor_nodes(weights: Array) -> tuple[list[NodeProto], dict[str, Array]]:
    """(B, 3, H, W) -> mean (B, 3) -> (B, 2048), unit norm."""
    node = helper.make_node
    return [
        node("ReduceMean", ["image", "plane"], ["mean"], keepdims=0),
        node("MatMul", ["mean", "to_descriptor"], ["wide"]),
        node("LpNormalization", ["wide"], ["descriptor"], axis=1, p=2),
    ], {"plane": np.array([2, 3]), "to_descriptor": weights}


def feature_nodes(weights: Array) -> tuple[list[NodeProto], dict[str, Array]]:
    """(B, 3, H, W) -> (B, 256, h, w), unit norm, and the same at the smaller scales."""
    node = helper.make_node
    pooled = {"kernel_shape": [STRIDE_PX] * 2, "strides": [STRIDE_PX] * 2, "ceil_mode": 1}
    nodes = [
        node("AveragePool", ["image"], ["pooled"], **pooled),
        node("Conv", ["pooled", "to_map"], ["grid"]),
        node("Shape", ["grid"], ["shape"]),
        node("Slice", ["shape", "two", "four"], ["extent"]),
        node("Slice", ["shape", "zero", "two"], ["batch_and_channels"]),
        node("Cast", ["extent"], ["extent_float"], to=FLOAT),
    ]
    constants = {name: np.array([n]) for name, n in (("zero", 0), ("two", 2), ("four", 4))}
    for s, scale in enumerate(AREA_SCALES):
        constants[f"side_{s}"] = np.array(np.sqrt(scale), np.float32)
        nodes += [
            node("Mul", ["extent_float", f"side_{s}"], [f"scaled_{s}"]),
            node("Round", [f"scaled_{s}"], [f"rounded_{s}"]),
            node("Cast", [f"rounded_{s}"], [f"size_{s}"], to=TensorProto.INT64),
            node("Concat", ["batch_and_channels", f"size_{s}"], [f"sizes_{s}"], axis=0),
            node("Resize", ["grid", "", "", f"sizes_{s}"], [f"resized_{s}"], mode="linear"),
            node("LpNormalization", [f"resized_{s}"], [f"map_{s}"], axis=1, p=2),
        ]
    return nodes, constants | {"to_map": weights.T.reshape(MAP_DIM, 3, 1, 1).copy()}


def reranker_nodes() -> tuple[list[NodeProto], dict[str, Array]]:
    """Maps of a query and of keys -> similarity of their means as logits (B, 2) and score (B,)."""
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["query_2", "plane"], ["query"], keepdims=0),
        node("ReduceMean", ["key_2", "plane"], ["key"], keepdims=0),
        node("Mul", ["query", "key"], ["product"]),
        node("ReduceSum", ["product", "one"], ["like"], keepdims=1),
        node("Neg", ["like"], ["unlike"]),
        node("Concat", ["unlike", "like"], ["logits"], axis=1),
        node("Softmax", ["logits"], ["both"], axis=1),
        node("Gather", ["both", "second"], ["score"], axis=1),
    ]
    return nodes, {"plane": np.array([2, 3]), "one": np.array([1]), "second": np.array(1)}


def write_graph(
    file: Path,
    nodes: list[NodeProto],
    constants: dict[str, Array],
    inputs: list[tuple[str, list[int | str]]],
    outputs: list[tuple[str, list[int | str]]],
) -> None:
    infos = [[helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in ends] for ends in (inputs, outputs)]
    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, file.stem, *infos, initializer=initial)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), file)


class OneMap(Closing):
    """A tiny graph with one map per image, as PyTorch's, not three. The tiny reranker reads only the last of them."""

    def __init__(self, engine: Engine) -> None:
        self.inputs = {name: spec for name, spec in engine.inputs.items() if not name.endswith(("_1", "_2"))}
        self.outputs = engine.outputs
        self._engine = engine

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if "image" in feeds:
            outputs = self._engine.run(feeds)
            return {"descriptor": outputs["descriptor"], "map_0": outputs["map_2"]}
        return self._engine.run({name: feeds[f"{name[:-1]}0"] for name in self._engine.inputs})

    def close(self) -> None:
        self._engine.close()


def open_tiny_reference(bundle: Bundle, threads: int | None, compiled: bool = False) -> Method:
    """A tiny bundle's engines in the form of its PyTorch model, in place of `open_reference`."""
    assert not compiled
    engines = Engines.open(bundle, threads)
    engines = replace(engines, features=OneMap(engines.features), reranker=OneMap(engines.reranker))
    return Method(REFERENCE, "torch-cpu", "fp32", f"PyTorch {bundle.manifest.weights_digest}", engines)
