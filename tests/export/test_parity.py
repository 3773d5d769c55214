"""The check that stands between an exported graph and a bundle."""

import pytest
import torch

from cvnet import checkpoint
from engine.errors import ExportError
from export import parity
from export.graphs import GRAPHS


@pytest.fixture
def graphs(bundle):
    return {graph.name: bundle / f"{graph.name}.onnx" for graph in GRAPHS}


def test_the_right_model_passes(graphs, seeded_model):
    worst = parity.check(graphs, seeded_model(50), "onnxruntime")
    assert all(0 < worst[name] <= limit for name, limit in parity.TOLERANCE.items())


@pytest.mark.parametrize(
    ("parameter", "output"),
    [("backbone.whiten.bias", "descriptor"), ("reranker.learner.mlp.2.bias", "logits")],
)
def test_a_slightly_different_model_fails(graphs, parameter, output):
    model = checkpoint.load("seeded:0", 50)
    with torch.no_grad():
        model.get_parameter(parameter)[0] += 0.01
    with pytest.raises(ExportError, match=f"^{output} differs"):
        parity.check(graphs, model, "onnxruntime")
