"""The real parser and builder of TensorRT for RTX, which compile without a GPU, on every graph and precision."""

import onnx
import pytest
from onnx import TensorProto, helper

from cvnet_engine.engine.errors import BackendError, ExportError
from cvnet_engine.engine.geometry import GRAPH_NAMES, IMAGE_GRAPHS
from cvnet_engine.export.precision import take_half_keys, to_fp16, to_int8
from cvnet_engine.export.tensorrt_plan import PlanOptions, SizeRange, build_plan, profiles
from tests.export.compiled_plans import CALIBRATION, MATRIX, TARGETS, compile_for_photos

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")

LANDSCAPE, PORTRAIT = SizeRange((64, 96), (96, 128), (128, 160)), SizeRange((96, 64), (128, 96), (160, 128))
LARGER = [SizeRange((96, 128), (128, 160), (128, 192)), SizeRange((128, 96), (160, 128), (192, 128))]
FIXED = SizeRange((96, 128), (96, 128), (96, 128))
RANGES = {"dynamic": [LANDSCAPE, PORTRAIT], "fixed": [FIXED]}
BRIEF = {("descriptor", "fp16", "fixed"), ("features", "int8", "dynamic"), ("reranker", "fp32", "fixed")}


@pytest.fixture(scope="session")
def typed(bundle, tmp_path_factory):
    """(graph, precision) -> the ONNX file that its plan is made of, each made once."""
    folder = tmp_path_factory.mktemp("typed")

    def make(graph, precision, plain=None):
        plain = plain or bundle / f"{graph}.onnx"
        file = folder / f"{plain.parent.name}.{graph}.{precision}.onnx"
        if precision != "fp32" and not file.exists():
            to_fp16(plain, file) if precision == "fp16" else to_int8(plain, file, CALIBRATION)
        typed = plain if precision == "fp32" else file
        if graph != "reranker":
            return typed
        half_keys = folder / f"{graph}.{precision}.half-keys.onnx"
        take_half_keys(typed, half_keys)
        return half_keys

    return make


def compile_plan(graph, folder, shapes, targets=TARGETS, progress=lambda *_: None):
    plan = folder / "x.plan"
    build_plan(graph, plan, shapes, folder / "timings", PlanOptions(targets=targets), progress)
    return plan


def briefly(cases, brief):
    """All cases, those marked slow that are not among the brief ones: each takes seconds to compile."""
    return [case if case in brief else pytest.param(*case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize(
    ("graph", "precision", "ranges"), briefly([(*entry, name) for entry in MATRIX for name in RANGES], BRIEF)
)
def test_every_graph_compiles(typed, tmp_path, graph, precision, ranges):
    """For three architectures at once; no file but the plan is left."""
    batch = 4 if graph == "reranker" else 1
    plan = compile_plan(typed(graph, precision), tmp_path, profiles(graph, RANGES[ranges], batch))
    assert plan.stat().st_size > 1 << 20
    assert list(tmp_path.iterdir()) == [plan]


@pytest.mark.parametrize(
    ("graph", "precision"),
    briefly([(g, p) for g in IMAGE_GRAPHS for p in ("fp32", "fp16", "int8")], {("features", "fp16")}),
)
def test_superglobals_descriptor_compiles(typed, superglobal_graphs, tmp_path, graph, precision):
    """With its regions mirrored at edges of any size, and one trunk's weights read by two passes."""
    file = typed(graph, precision, superglobal_graphs / f"{graph}.onnx")
    compile_plan(file, tmp_path, profiles(graph, LARGER, 1, "superglobal"), ["sm89"])


@pytest.mark.slow
@pytest.mark.parametrize(("graph", "precision"), MATRIX)
@pytest.mark.parametrize("target", TARGETS)
def test_every_graph_compiles_for_photos_for_each_target(typed, tmp_path, graph, precision, target):
    _, plan_bytes = compile_for_photos(graph, typed(graph, precision), tmp_path, target)
    assert plan_bytes > 1 << 20


def test_the_matrix_has_every_graph_and_precision():
    assert {graph for graph, _ in MATRIX} == set(GRAPH_NAMES)
    assert {precision for _, precision in MATRIX} == {"fp32", "fp16", "int8"}


def test_progress_is_reported(bundle, tmp_path):
    reports = []
    shapes = profiles("reranker", [FIXED], 1)
    compile_plan(
        bundle / "reranker.onnx", tmp_path, shapes, ["sm89"], lambda phase, done: reports.append((phase, done))
    )
    assert reports[0][1] == 0.0
    assert max(done for _, done in reports) == 1.0


def small_graph(folder, operator, domain=""):
    """x (n, 4) -> y by one operator."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    node = helper.make_node(operator, ["x"], ["y"], name="the_node", domain=domain)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("elsewhere", 1)]
    model = helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=opsets, ir_version=10)
    onnx.save(model, folder / "small.onnx")
    return folder / "small.onnx"


ROWS = {"x": ((1, 4), (2, 4), (4, 4))}


def test_an_unknown_operator_is_refused_with_the_reason(tmp_path):
    graph = small_graph(tmp_path, "Frobnicate", "elsewhere")
    with pytest.raises(ExportError, match=r"^small.onnx: TensorRT for RTX 1\S+ does not read it \(Frobnicate the"):
        compile_plan(graph, tmp_path, [])


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([{"x": ((1, 4), (8, 4), (4, 4))}], r"a profile does not fit \(.*MIN<=OPT<=MAX"),
        ([{"x": ((1, 3), (2, 3), (4, 3))}], r"does not compile it \(.*Dimension mismatch for tensor x"),
        ([], r"does not compile it \(.*no optimization profile"),
    ],
)
def test_an_impossible_profile_is_refused_with_the_reason(tmp_path, monkeypatch, shapes, words):
    monkeypatch.setattr("cvnet_engine.export.tensorrt_plan.check_batch", lambda *_: None)  # it has a test of its own
    with pytest.raises(ExportError, match=words):
        compile_plan(small_graph(tmp_path, "Relu"), tmp_path, shapes)
    assert not (tmp_path / "x.plan").exists()


def test_a_second_failure_gives_its_own_reason(tmp_path):
    """The library has one logger per process."""
    with pytest.raises(ExportError, match="does not read it"):
        compile_plan(small_graph(tmp_path, "Frobnicate", "elsewhere"), tmp_path, [])
    assert compile_plan(small_graph(tmp_path, "Relu"), tmp_path, [ROWS]).stat().st_size
    with pytest.raises(ExportError, match="no optimization profile"):
        compile_plan(small_graph(tmp_path, "Relu"), tmp_path, [])


def test_an_unknown_target_is_refused(tmp_path):
    with pytest.raises(BackendError, match="does not support target 'sm90'"):
        compile_plan(small_graph(tmp_path, "Relu"), tmp_path, [ROWS], ["sm90"])
