"""Graphs of reduced precision against the published code's outputs.

ONNX Runtime's CPU provider computes most float16 nodes in float32 and rounds only where a cast is left over. So every
float16 graph is tested twice: as it is, and with a rounding to float16 behind each of its float16 nodes, as a GPU does.
"""

from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper
from onnxruntime.quantization import quantize_static

from cvnet_engine.engine.backends import open_engine
from cvnet_engine.engine.backends.openvino import WEIGHT_MAX
from cvnet_engine.engine.contract import require_signature
from cvnet_engine.engine.errors import BackendError, ExportError
from cvnet_engine.export import parity, precision
from cvnet_engine.export.graphs import GRAPHS
from cvnet_engine.export.precision import FLOAT, HALF, INT8_MAX, cpu_weight_max, take_half_keys, to_fp16, to_int8
from cvnet_engine.export.reranker import UnitMaps
from tests.golden_inputs import IMAGE_SIZES, PAIR_SIZES, feature_map, golden_image, golden_pair, image

CALIBRATION = [image(f"calibration{i}", *size) for i, size in enumerate([*IMAGE_SIZES, (128, 128)])]
FLOAT32_OPS = {"Clip", "Pow", "ReduceMean", "ReduceL2", "Sqrt", "Reciprocal", "Softmax", "Gemm", "Div", "Sub"}


def with_roundings(source, target):
    """Write a float16 graph in float32, with a rounding to float16 behind each node that was float16."""
    model = ir.load(source)
    graph = model.graph
    for name, value in graph.initializers.items():
        if value.dtype == HALF:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=name)
            value.dtype = FLOAT
    for node in [node for node in graph if node.outputs[0].dtype == HALF]:
        output = node.outputs[0]
        if node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", FLOAT)
        output.dtype = FLOAT
        readers = list(output.uses())
        rounded = precision.add_cast(graph, output, HALF)
        restored = precision.add_cast(graph, rounded, FLOAT)
        for reader in readers:
            reader.node.replace_input_with(reader.idx, restored)
    ir.save(model, target)


@pytest.fixture(scope="module")
def half_graphs(bundle, tmp_path_factory):
    """Graph name -> file of the float16 graph."""
    folder = tmp_path_factory.mktemp("half")
    files = {graph.name: folder / f"{graph.name}.onnx" for graph in GRAPHS}
    for file in files.values():
        to_fp16(bundle / file.name, file)
    return files


@pytest.fixture(scope="module", params=["as ONNX Runtime rounds", "as a GPU rounds"])
def half_engines(request, half_graphs):
    """Graph name -> engine of the float16 graph."""
    files = dict(half_graphs)
    if request.param == "as a GPU rounds":
        for name, file in half_graphs.items():
            files[name] = file.with_name(f"{name}_rounded.onnx")
            with_roundings(file, files[name])
    return {name: open_engine(file, "onnxruntime") for name, file in files.items()}


@pytest.fixture(scope="module")
def int8_graph(bundle, tmp_path_factory):
    file = tmp_path_factory.mktemp("int8") / "features.onnx"
    to_int8(bundle / "features.onnx", file, CALIBRATION)
    return file


@pytest.fixture(scope="module")
def unit_maps(seeded_model):
    """A feature map (1, 1024, h, w) -> its three unit maps, by PyTorch."""
    module = UnitMaps(seeded_model(50).reranker)

    def compute(array):
        with torch.inference_mode():
            return [m.numpy() for m in module(torch.from_numpy(array))]

    return compute


def pair(query, key):
    return {f"query_{s}": m for s, m in enumerate(query)} | {f"key_{s}": m for s, m in enumerate(key)}


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


# float16


@pytest.mark.parametrize("size", IMAGE_SIZES)
@pytest.mark.parametrize("name", ["descriptor", "features"])
def test_half_descriptors(half_engines, name, size, golden):
    got = half_engines[name].run({"image": golden_image(*size)})["descriptor"][0]
    want = golden(50)["descriptor_{}x{}".format(*size)]
    assert cosine(got, want) >= 0.9995
    np.testing.assert_allclose(got, want, atol=2e-4)  # descriptors of different images here differ by 5e-3 and more


@pytest.mark.parametrize("size", PAIR_SIZES)
def test_half_scores(half_engines, unit_maps, size, golden):
    score = half_engines["reranker"].run(pair(*map(unit_maps, golden_pair(*size))))["score"][0]
    assert abs(score - golden(50)["score_{}x{}_{}x{}".format(*size)]) <= 0.005


@pytest.mark.parametrize("key_size", [(192, 144), (160, 224)])
def test_half_images_to_score(half_engines, key_size, golden):
    query, key = (half_engines["features"].run({"image": golden_image(*s)}) for s in ((160, 224), key_size))
    maps = ([side[f"map_{s}"] for s in range(3)] for side in (query, key))
    score = half_engines["reranker"].run(pair(*maps))["score"][0]
    assert abs(score - golden(50)["image_score_160x224_{}x{}".format(*key_size)]) <= 0.005


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(np.zeros((1, 3, 160, 224), np.float32), id="zero"),
        pytest.param(np.full((1, 3, 160, 224), 2.2, np.float32), id="constant"),
        pytest.param(300 * golden_image(160, 224), id="large activations"),
    ],
)
def test_half_extreme_images(half_engines, images, seeded_model):
    outputs = half_engines["features"].run({"image": images})
    with torch.inference_mode():
        descriptor, _ = seeded_model(50)(torch.from_numpy(images))
    assert all(np.isfinite(array).all() for array in outputs.values())
    assert cosine(outputs["descriptor"][0], descriptor[0].numpy()) >= 0.9995


def test_half_zero_vectors(half_engines, unit_maps):
    """Feature vectors of zero, in part of a map and in all of it."""
    some = feature_map("some", 8, 8)
    some[:, :, :4] = 0
    for array in (some, np.zeros_like(some)):
        score = half_engines["reranker"].run(pair(unit_maps(array), unit_maps(array)))["score"]
        assert np.isfinite(score).all()


def test_half_without_float32_parts_overflows(bundle, tmp_path, monkeypatch):
    """Shows why parts stay float32, and that these tests would fail without them."""
    monkeypatch.setattr(precision, "MATRIX_OPS", precision.MATRIX_OPS | {"Clip", "Pow", "ReduceMean"})
    file = tmp_path / "descriptor.onnx"
    to_fp16(bundle / file.name, file)
    with_roundings(file, file)
    descriptor = open_engine(file, "onnxruntime").run({"image": 300 * golden_image(160, 224)})["descriptor"]
    assert not np.isfinite(descriptor).all()


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_half_graph_types(half_graphs, graph):
    model = onnx.load(half_graphs[graph.name])
    onnx.checker.check_model(model, full_check=True)
    assert {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)} == {TensorProto.FLOAT}
    types = {v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    types |= {v.name: v.type.tensor_type.elem_type for v in model.graph.output}
    for node in model.graph.node:
        if node.op_type in precision.MATRIX_OPS:
            assert types[node.output[0]] == TensorProto.FLOAT16
        if node.op_type in FLOAT32_OPS:
            assert types[node.output[0]] != TensorProto.FLOAT16
    weights = [len(w.dims) for w in model.graph.initializer if w.data_type == TensorProto.FLOAT16]
    assert weights.count(4) + weights.count(5) == sum(node.op_type == "Conv" for node in model.graph.node)


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_half_graph_casts_once(half_graphs, graph):
    casts = [node for node in onnx.load(half_graphs[graph.name]).graph.node if node.op_type == "Cast"]
    made = {node.output[0] for node in casts}
    assert not [node.name for node in casts if node.input[0] in made]
    assert len({(node.input[0], node.attribute[0].i) for node in casts}) == len(casts)


@pytest.fixture(scope="module")
def half_keys(bundle, half_graphs, tmp_path_factory):
    """Precision -> file of the reranker's graph that takes keys in float16."""
    folder = tmp_path_factory.mktemp("half-keys")
    sources = {"fp32": bundle / "reranker.onnx", "fp16": half_graphs["reranker"]}
    for name, source in sources.items():
        take_half_keys(source, folder / f"{name}.onnx")
    return {name: folder / f"{name}.onnx" for name in sources}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_keys_are_float16_and_cast_where_necessary(half_keys, precision):
    model = onnx.load(half_keys[precision])
    onnx.checker.check_model(model, full_check=True)
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    keys = {f"key_{s}" for s in range(3)}
    assert {name for name, kind in types.items() if kind == TensorProto.FLOAT16} == keys
    casts = [node.input[0] for node in model.graph.node if node.op_type == "Cast" and node.input[0] in keys]
    assert sorted(casts) == (sorted(keys) if precision == "fp32" else [])


@pytest.mark.parametrize("size", PAIR_SIZES)
def test_float16_keys_score_like_the_same_values_in_float32(bundle, half_graphs, half_keys, unit_maps, size):
    feeds = pair(*map(unit_maps, golden_pair(*size)))
    stored = {name: m.astype(np.float16) if name.startswith("key") else m for name, m in feeds.items()}
    widened = {name: m.astype(np.float32) for name, m in stored.items()}
    for source, file in ((bundle / "reranker.onnx", half_keys["fp32"]), (half_graphs["reranker"], half_keys["fp16"])):
        want, got = (open_engine(graph, "onnxruntime").run(fed) for graph, fed in ((source, widened), (file, stored)))
        np.testing.assert_allclose(got["score"], want["score"], rtol=0, atol=1e-6)


def tiny_graph(file, weight, relu=True):
    """x (1, 1, 4, 4) -> Conv -> Relu -> y, saved."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["c" if relu else "y"])]
    nodes += [helper.make_node("Relu", ["c"], ["y"])] if relu else []
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 4, 4]) for name in "xy")
    weights = onnx.numpy_helper.from_array(np.full((1, 1, 1, 1), weight, np.float32), "w")
    graph = helper.make_graph(nodes, "tiny", [x], [y], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), file)
    return file


@pytest.mark.parametrize("relu", [True, False])
def test_half_output_stays_float32(tmp_path, relu):
    to_fp16(tiny_graph(tmp_path / "tiny.onnx", 2.0, relu), tmp_path / "half.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "half.onnx"), full_check=True)
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    outputs = open_engine(tmp_path / "half.onnx", "onnxruntime").run({"x": x})
    np.testing.assert_array_equal(outputs["y"], 2 * x)
    assert outputs["y"].dtype == np.float32


def test_half_weight_out_of_range_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"weight 'w' reaches 1\.0e\+05; float16 holds 65504: .*--precision fp32"):
        to_fp16(tiny_graph(tmp_path / "tiny.onnx", 1e5), tmp_path / "half.onnx")


def test_a_graph_with_branches_is_refused(tmp_path):
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "branch", [], [y])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    file = tmp_path / "branches.onnx"
    onnx.save(helper.make_model(helper.make_graph([node], "g", [x, condition], [y])), file)
    with pytest.raises(ExportError, match="If has a subgraph"):
        to_fp16(file, tmp_path / "half.onnx")


# int8


def test_int8_covers_the_backbone(int8_graph):
    """Every convolution but the stem, and every residual sum's shortcut; all symmetric, weights per channel."""
    graph = onnx.load(int8_graph).graph
    onnx.checker.check_model(int8_graph, full_check=True)
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in graph.initializer}
    restored = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    stem, *convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert not set(stem.input) & restored.keys()
    assert len(convolutions) == 52 + 3  # ResNet-50's, shortcuts' included, and the reranker's projections
    for node in convolutions:
        assert node.input[0] in restored
        quantised, scale, zero = (weights[name] for name in restored[node.input[1]].input)
        assert quantised.dtype == zero.dtype == np.int8
        assert scale.shape == zero.shape == quantised.shape[:1]
        assert 120 <= np.abs(quantised.astype(int)).max(axis=(1, 2, 3)).min() <= 127
    sums = [node for node in graph.node if node.op_type == "Add" and node.input[1] in restored]
    assert len(sums) == 16  # one a block
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert not weights[node.input[2]].any()
            assert (weights[node.input[1]] > 0).all()


def quantisation(file):
    """What a graph quantises: scale of each activation, and (int8 weight, scales) of each convolution, by name."""
    graph = onnx.load(file).graph
    values = {w.name: onnx.numpy_helper.to_array(w) for w in graph.initializer}
    restored = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    activations = {node.input[0]: values[node.input[1]] for node in graph.node if node.op_type == "QuantizeLinear"}
    convolutions = [node for node in graph.node if node.op_type == "Conv" and node.input[1] in restored]
    return activations, {node.name: [values[n] for n in restored[node.input[1]].input[:2]] for node in convolutions}


def test_int8_as_onnxruntime_quantises(int8_graph, bundle, tmp_path):
    """Scales and weights equal those of ONNX Runtime's tool, which also rounds a sum's other summand."""
    activations, weights = quantisation(int8_graph)
    nodes = onnx.load(int8_graph).graph.node
    restored = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    feeds = ({"image": images} for images in CALIBRATION)
    quantize_static(
        bundle / "features.onnx",
        tmp_path / "theirs.onnx",
        SimpleNamespace(get_next=lambda: next(feeds, None)),
        per_channel=True,
        op_types_to_quantize=["Conv", "Add"],
        nodes_to_quantize=[node.name for node in nodes if node.op_type in ("Conv", "Add") and restored & {*node.input}],
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": ["Conv", "Add"],
        },
    )
    their_activations, their_weights = quantisation(tmp_path / "theirs.onnx")
    assert len(their_activations) == len(activations) + 16  # one a block
    for name, scale in activations.items():
        np.testing.assert_allclose(scale, their_activations[name], rtol=1e-5)
    assert weights.keys() == their_weights.keys()
    for name, (weight, scale) in weights.items():
        np.testing.assert_array_equal(weight, their_weights[name][0])
        np.testing.assert_allclose(scale, their_weights[name][1], rtol=1e-6)


@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_int8_descriptors_and_maps(int8_graph, size, golden, seeded_model):
    outputs = open_engine(int8_graph, "onnxruntime").run({"image": golden_image(*size)})
    assert cosine(outputs["descriptor"][0], golden(50)["descriptor_{}x{}".format(*size)]) >= 0.9995
    with torch.inference_mode():
        _, array = seeded_model(50)(torch.from_numpy(golden_image(*size)))
        want = UnitMaps(seeded_model(50).reranker)(array)
    for scale, m in enumerate(want):
        assert (outputs[f"map_{scale}"] * m.numpy()).sum(axis=1).min() >= 0.99  # cosine at every position


@pytest.fixture(scope="module")
def seven_bits(bundle, tmp_path_factory):
    """The int8 graph for processors whose sums of byte products would saturate."""
    file = tmp_path_factory.mktemp("int8") / "features.onnx"
    to_int8(bundle / "features.onnx", file, CALIBRATION, WEIGHT_MAX)
    return file


@pytest.fixture(scope="module")
def cpu_graph(int8_graph, seven_bits):
    """The int8 graph that `build` makes for this processor."""
    return {INT8_MAX: int8_graph, WEIGHT_MAX: seven_bits}[cpu_weight_max()]


def test_int8_features_have_the_signature_of_a_bundle(cpu_graph):
    """OpenVINO's compiled int8 model lacks the channels of maps, so they are read from the file."""
    with open_engine(cpu_graph, "openvino", "int8") as engine:
        require_signature("features", engine, cpu_graph)


def test_openvino_agrees_with_onnxruntime_in_int8(cpu_graph):
    """Also on processors without VNNI, where 8-bit weights would double the error."""
    feeds = {"image": golden_image(160, 224)}
    got, want = (open_engine(cpu_graph, *by).run(feeds) for by in (("openvino", "int8"), ("onnxruntime",)))
    for name in want:
        assert parity.difference(got[name], want[name]) < 0.5 * parity.TOLERANCE["int8"][name.partition("_")[0]]


def test_8_bit_weights_are_refused_without_vnni(int8_graph, seven_bits, monkeypatch):
    monkeypatch.setattr("cvnet_engine.engine.machine.adds_bytes_exactly", lambda: False)
    with pytest.raises(BackendError, match="VNNI, which this one lacks"):
        open_engine(int8_graph, "openvino", "int8")
    open_engine(seven_bits, "openvino", "int8").close()


def test_int8_scores(int8_graph, bundle, golden):
    engine = open_engine(int8_graph, "onnxruntime")
    query, *keys = (engine.run({"image": golden_image(*size)}) for size in ((160, 224), (192, 144), (160, 224)))
    for key, tag in zip(keys, ("192x144", "160x224"), strict=True):
        maps = ([side[f"map_{s}"] for s in range(3)] for side in (query, key))
        score = open_engine(bundle / "reranker.onnx", "onnxruntime").run(pair(*maps))["score"][0]
        assert abs(score - golden(50)[f"image_score_160x224_{tag}"]) <= 0.005


def test_int8_without_calibration_images_is_refused(bundle, tmp_path):
    with pytest.raises(ExportError, match="0 calibration images gave no finite ranges"):
        to_int8(bundle / "descriptor.onnx", tmp_path / "int8.onnx", [])


def test_int8_reranker_is_refused(bundle, tmp_path):
    with pytest.raises(ExportError, match="not a backbone to quantise"):
        to_int8(bundle / "reranker.onnx", tmp_path / "int8.onnx", CALIBRATION)
