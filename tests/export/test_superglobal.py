"""SuperGlobal's descriptor as exported graphs, against PyTorch and against outputs of its published code."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from torch import nn

from cvnet_engine.cvnet import checkpoint
from cvnet_engine.cvnet.superglobal import FLOOR, floored, global_mean, regional_mean
from cvnet_engine.engine.backends import open_engine
from cvnet_engine.engine.errors import ImageError
from cvnet_engine.engine.geometry import IMAGE_GRAPHS, IMAGE_SCALES
from cvnet_engine.engine.images import load
from cvnet_engine.engine.retrieval.descriptors import DESCRIPTORS
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.superglobal import Refinement, mean_weights, over_scales, rerank
from cvnet_engine.export import parity
from cvnet_engine.export.build import usable_sizes
from cvnet_engine.export.graphs import Graph
from cvnet_engine.export.onnx_export import export
from cvnet_engine.export.precision import cpu_weight_max, to_fp16, to_int8
from cvnet_engine.export.tensorrt_plan import profiles, size_ranges
from tests.golden_inputs import GOLDEN, SHARED, image
from tests.neighbours import settled

BIAS = "backbone.whiten.bias"
RUN = SHARED / "superglobal" / "superglobal_r50_seed0_landmarks-tiny.npz"
DEMO_RUN = SHARED / "superglobal" / "superglobal_demo_landmarks-tiny.npz"
PHOTOS = SHARED / "data" / "landmarks-tiny"
CPU_BACKENDS = ("onnxruntime", "openvino")


class Head(nn.Module):
    """The units of the descriptor that have goldens, behind each other."""

    def forward(self, x):
        x = floored(x, 0.0)
        regional = regional_mean(x)
        return floored(x, FLOOR), regional, global_mean(x), global_mean(regional)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The units as a graph of free batch, height and width."""
    file = tmp_path_factory.mktemp("head") / "head.onnx"
    axes = {"x": ("batch", "channels", "height", "width")}
    export(Graph("head", lambda _: Head(), axes, ("floored", "rgem", "gemp", "gemp_of_rgem"), 8), None, file)
    return file


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_published_units(head, backend):
    units = dict(np.load(GOLDEN / "superglobal_units.npz"))
    engine = open_engine(head, backend)
    got = engine.run({"x": units["map_signed"]})
    np.testing.assert_array_equal(got["floored"], units["relup"])
    for name in ("rgem", "gemp", "gemp_of_rgem"):
        np.testing.assert_allclose(got[name], units[name], rtol=0, atol=5e-7)
    np.testing.assert_allclose(engine.run({"x": units["map_3x3"]})["rgem"], units["rgem_3x3"], rtol=0, atol=5e-7)
    zero = engine.run({"x": np.zeros((1, 4, 3, 3), np.float32)})
    np.testing.assert_allclose(zero["gemp"], units["gemp_of_zero"], rtol=1e-5)


@pytest.fixture(scope="module")
def small_bias(superglobal_graphs, tmp_path_factory):
    """The image graphs with a 256th of the seeded bias, in which the rest of the descriptor would drown."""
    folder = tmp_path_factory.mktemp("small_bias")
    for name in IMAGE_GRAPHS:
        model = onnx.load(superglobal_graphs / f"{name}.onnx")
        (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == BIAS)
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) / np.float32(256), BIAS))
        onnx.save(model, folder / f"{name}.onnx")
    return folder


@pytest.fixture(scope="module")
def cases():
    """What PyTorch gives with that bias."""
    model = checkpoint.load("seeded:0", 50, descriptor="superglobal")
    model.backbone.whiten.bias.div_(256)
    return parity.cases(model, parity.samples(None, [], "superglobal"))


@pytest.mark.parametrize("graph", IMAGE_GRAPHS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_graphs_of_any_size_agree_with_pytorch(small_bias, cases, graph, backend):
    worst = parity.check(open_engine(small_bias / f"{graph}.onnx", backend), cases[graph], "fp32")
    assert worst.keys() == cases[graph][0].want.keys()


def test_maps_equal_those_of_the_cvnet_graph(superglobal_graphs, bundle):
    x = {"image": image("superglobal", 97, 131)}
    got, want = (open_engine(folder / "features.onnx", "onnxruntime").run(x) for folder in (superglobal_graphs, bundle))
    for s in range(3):
        np.testing.assert_allclose(got[f"map_{s}"], want[f"map_{s}"], atol=1e-5)
    assert np.linalg.norm(got["descriptor"] - want["descriptor"]) > 1e-2


def test_two_trunks_share_one_stem_and_all_weights(superglobal_graphs, bundle):
    sizes = [(folder / "features.onnx").stat().st_size for folder in (superglobal_graphs, bundle)]
    assert sizes[0] < 1.01 * sizes[1]
    operators = Counter(node.op_type for node in onnx.load(superglobal_graphs / "features.onnx").graph.node)
    assert operators["MaxPool"] == 1
    assert operators["Conv"] == 53 + 43 - 1 + 1  # SuperGlobal's trunk, CVNet's up to stage 3 but for the stem, maps
    assert operators["BatchNormalization"] == 0


def test_fp16_keeps_activations_in_float16_up_to_the_head(small_bias, cases, tmp_path):
    to_fp16(small_bias / "descriptor.onnx", tmp_path / "x.onnx")
    onnx.checker.check_model(tmp_path / "x.onnx")
    graph = ir.load(tmp_path / "x.onnx").graph
    assert sum(node.op_type == "Cast" for node in graph) == 2  # the image, and the last map
    floors = [node.inputs[1].const_value.numpy() for node in graph if node.op_type == "Clip"]
    assert sum(floor.dtype == np.float16 for floor in floors) == 19  # 13 blocks of stages 1 to 3, 6 within stage 1
    parity.check(open_engine(tmp_path / "x.onnx", "onnxruntime"), cases["descriptor"], "fp16")


def test_int8_stores_a_shared_weight_once(small_bias, cases, tmp_path):
    calibration = [image(f"calibration{n}", *size) for n, size in enumerate([(160, 224), (97, 131), (128, 128)])]
    to_int8(small_bias / "features.onnx", tmp_path / "x.onnx", calibration, cpu_weight_max())
    onnx.checker.check_model(tmp_path / "x.onnx")
    assert (tmp_path / "x.onnx").stat().st_size < 0.4 * (small_bias / "features.onnx").stat().st_size
    outputs = [name for node in onnx.load(tmp_path / "x.onnx").graph.node for name in node.output]
    assert len(outputs) == len(set(outputs))
    parity.check(open_engine(tmp_path / "x.onnx", "openvino", "int8"), cases["features"], "int8")


def test_profile_sizes_are_rounded_down():
    (sizes,) = size_ranges([(240, 320)])
    cut, rounded = (profiles("descriptor", [sizes], 1, name)[0]["image"][1] for name in ("superglobal", "cvnet"))
    assert (cut, rounded) == ((1, 3, 169, 226), (1, 3, 170, 226))


def test_sizes_below_the_minimum_are_not_built_for():
    assert usable_sizes([(768, 1024), (91, 500), (92, 92)], "superglobal") == [(768, 1024), (92, 92)]
    with pytest.raises(ImageError, match=r"less than 92 px, which SuperGlobal's descriptor needs"):
        usable_sizes([(91, 500)], "superglobal")


@pytest.fixture(scope="module", params=CPU_BACKENDS)
def backend(request):
    return request.param


def engines_of(folder, backend) -> Engines:
    """One that describes and scores no pairs."""
    descriptor, features = (open_engine(folder / f"{name}.onnx", backend) for name in IMAGE_GRAPHS)
    return Engines(descriptor, features, None, DESCRIPTORS["superglobal"])


def test_the_shortest_side(superglobal_graphs, backend):
    engines = engines_of(superglobal_graphs, backend)
    pixels = np.random.default_rng(0).integers(0, 256, (92, 300, 3), np.uint8)
    assert engines.extract(pixels).descriptor.shape == (2048,)
    with pytest.raises(ImageError, match=r"^300x91 pixels are too few; expected at least 92 on each side"):
        engines.extract(pixels[:91])


@pytest.fixture(scope="module")
def run():
    if not (RUN.is_file() and PHOTOS.is_dir()):
        pytest.skip(f"no {RUN.name} and {PHOTOS.name} beside the project")
    return dict(np.load(RUN))


@pytest.fixture(scope="module")
def dataset():
    from cvnet_engine.benchmarks.accuracy.dataset import load

    return load(PHOTOS.parent, PHOTOS.name)


def described_query(engines, dataset, row):
    from cvnet_engine.benchmarks.accuracy.evaluation import extract_query

    return extract_query(engines, dataset.queries[row], dataset.ground_truth[row].bbx).descriptor


def test_published_descriptors_with_a_small_bias(small_bias, backend, run, dataset):
    engines = engines_of(small_bias, backend)
    photo = engines.extract_from(dataset.images[0])
    np.testing.assert_allclose(photo.descriptor, run["b256_default_db0"], rtol=0, atol=2e-6)
    query = described_query(engines, dataset, run["query_rows"][0])
    np.testing.assert_allclose(query, run["b256_default_q0"], rtol=0, atol=2e-6)
    pixels = load(dataset.images[0])
    inputs = [engines.kind.network_input(pixels, scale) for scale in IMAGE_SCALES]
    np.testing.assert_array_equal([x.shape[2:] for x in inputs], [run[f"db0_scale{s}_hw"] for s in range(3)])
    scales = np.concatenate([engines.descriptor.run({"image": x})["descriptor"] for x in inputs])
    np.testing.assert_allclose(scales[1], run["b256_scales1_db0"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(over_scales(scales), photo.descriptor, rtol=0, atol=1e-6)
    for left_out in ("norelup", "nogemp", "norgem", "nosgem", "alloff", "antialias"):  # the test can tell them
        assert np.abs(run[f"b256_{left_out}_db0"] - photo.descriptor).max() > 2e-5


@pytest.mark.slow
def test_published_ranks_of_a_part_of_the_photos(small_bias, run, dataset):
    """40 photos and 10 queries, whole: image files to reranked rows."""
    engines = engines_of(small_bias, "onnxruntime")
    database = np.stack([engines.extract_from(path).descriptor for path in dataset.images[:40]])
    queries = [described_query(engines, dataset, row) for row in run["b256_sub_query_rows"]]
    require_published(run, "b256_sub_", database, queries, {"": Refinement(), "M15_": Refinement(15, 4)}, 2e-6)


@pytest.mark.slow
def test_published_run(superglobal_graphs, backend, run, dataset):
    """168 photos and 38 queries of the seeded model, whole: descriptors, similarities and refined similarities.

    The latter where it is settled which ten neighbours an image has: half of the similarities that decide it are closer
    than 1.4e-6, some equal in float32. Two that are off by as much as any here may have changed places.
    """
    engines = engines_of(superglobal_graphs, backend)
    database = np.stack([engines.extract_from(path).descriptor for path in dataset.images])
    queries = [described_query(engines, dataset, row) for row in run["query_rows"]]
    np.testing.assert_allclose(database, run["desc_db"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(queries, run["desc_query"], rtol=0, atol=1e-6)
    similarities = database @ np.transpose(queries)
    np.testing.assert_allclose(similarities, run["sim"], rtol=0, atol=2e-6)
    doubt, how = 2 * np.abs(similarities - run["sim"]).max(), Refinement()
    for number, query in enumerate(queries):
        shortlist = database[run["ranks_global"][:, number]]
        among = shortlist @ shortlist.T
        known = settled(shortlist, how, doubt)
        assert known.mean() > 0.3
        refined = mean_weights(among, how) @ (shortlist @ query)
        np.testing.assert_allclose(refined[known], run["refined_sim"][number][known], rtol=0, atol=2e-6)


@pytest.mark.slow
def test_published_run_of_the_demonstration_model(tmp_path, dataset):
    if not DEMO_RUN.is_file():
        pytest.skip(f"no {DEMO_RUN.name} beside the project")
    from tests.conftest import export_image_graphs

    run = dict(np.load(DEMO_RUN))
    export_image_graphs(checkpoint.load("demo", 50, descriptor="superglobal"), tmp_path)
    engines = engines_of(tmp_path, "onnxruntime")
    database = np.stack([engines.extract_from(path).descriptor for path in dataset.images])
    queries = [described_query(engines, dataset, row) for row in run["query_rows"]]
    assert not database[:, 384:].any()  # the narrow network fills the first values
    np.testing.assert_allclose(database[:, :384], run["desc_db"], rtol=0, atol=2e-6)
    require_published(run, "", database, queries, {"": Refinement(), "M50_": Refinement(50)}, 4e-6)


def require_published(run, prefix, database, queries, refinements, atol):
    """Similarities, and refined scores by row, where it is settled which neighbours an image has."""
    for number, query in enumerate(queries):
        similarities = database @ query
        np.testing.assert_allclose(similarities, run[f"{prefix}sim"][:, number], rtol=0, atol=atol)
        before = Ranking.by_similarity(similarities)
        for which, how in refinements.items():
            after = rerank(query, before, database, how)
            k = min(how.shortlist, len(database))
            order = run[f"{prefix}{which}order2"][number]
            published = dict(
                zip(
                    run[f"{prefix}{which}ranks_rerank"][:k, number].tolist(),
                    run[f"{prefix}{which}final"][number][order].tolist(),
                    strict=True,
                )
            )
            got = dict(zip(after.rows[:k].tolist(), after.refined[:k].tolist(), strict=True))
            assert got.keys() == published.keys()
            known = settled(database[before.rows[:k]], how, atol / 2)
            assert known.mean() > 0.3
            rows = before.rows[:k][known].tolist()
            np.testing.assert_allclose([got[row] for row in rows], [published[row] for row in rows], rtol=0, atol=atol)
