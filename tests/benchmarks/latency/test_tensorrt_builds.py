"""One row of the table of builds: compiled by the real library, or refused in its words."""

import onnx
import pytest
from onnx import TensorProto, helper

from cvnet_engine.benchmarks.latency import tensorrt_builds
from cvnet_engine.benchmarks.latency.tensorrt_builds import Build, compiled, table

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")


@pytest.fixture
def graph(tmp_path, monkeypatch):
    """operator -> a graph that reads an image, of the size that plans are made for here."""
    monkeypatch.setattr(tensorrt_builds, "SIZE", (32, 48))

    def make(operator):
        x = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, "h", "w"])
        model = helper.make_model(
            helper.make_graph([helper.make_node(operator, ["image"], ["y"])], "g", [x], [y]),
            opset_imports=[helper.make_opsetid("", 20)],
            ir_version=10,
        )
        onnx.save(model, tmp_path / "g.onnx")
        return tmp_path / "g.onnx"

    return make


def test_a_graph_that_compiles(graph):
    build = compiled("features", "fp32", "sm89", graph("Relu"))
    assert (build.graph, build.precision, build.target, build.layers, build.refused) == (
        "features",
        "fp32",
        "sm89",
        1,
        "",
    )
    assert build.plan_bytes > 0


def test_a_graph_that_is_refused_is_a_row_with_the_reason(graph):
    build = compiled("features", "fp32", "sm89", graph("StringNormalizer"))
    assert build == Build("features", "fp32", "sm89", refused=build.refused)
    assert "does not read it" in build.refused
    assert build.refused in table([build], "x").rows[0]
