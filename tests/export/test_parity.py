"""The check that stands between an engine and a bundle."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cvnet_engine.cvnet import checkpoint
from cvnet_engine.engine.backends import open_engine
from cvnet_engine.engine.errors import ExportError
from cvnet_engine.export import parity
from cvnet_engine.export.artifacts import Artifacts
from cvnet_engine.export.build import fallback_of, graph_file
from cvnet_engine.export.selection import Choice, choose


@pytest.fixture(scope="module")
def cases(seeded_model):
    return parity.cases(seeded_model(50), parity.samples(None, []))


@pytest.fixture(scope="module")
def changed_cases():
    """What a slightly different model returns for images of one size."""
    model = checkpoint.load("seeded:0", 50)
    with torch.no_grad():
        model.backbone.whiten.bias[0] += 0.01
        model.reranker.learner.mlp[2].bias[0] += 0.01
    return parity.cases(model, parity.samples(None, [])[1:2])


@pytest.mark.parametrize("graph", ["descriptor", "features", "reranker"])
def test_the_right_model_passes(bundle, cases, graph):
    worst = parity.check(open_engine(bundle / f"{graph}.onnx", "onnxruntime"), cases[graph], "fp32")
    assert worst.keys() == cases[graph][0].want.keys()
    assert all(value > 0 for value in worst.values())  # float32 sums in another order: zero would mean no comparison


@pytest.mark.parametrize(
    ("graph", "output"), [("descriptor", "descriptor"), ("features", "descriptor"), ("reranker", "logits")]
)
def test_a_slightly_different_model_fails(bundle, changed_cases, graph, output):
    engine = open_engine(bundle / f"{graph}.onnx", "onnxruntime")
    with pytest.raises(ExportError, match=f"^{output} differs"):
        parity.check(engine, changed_cases[graph], "fp32")


def test_samples_are_photos_where_there_are_some():
    photos = [np.zeros((1, 3, 40, 50), np.float32)]
    assert parity.samples(None, photos) == photos
    assert {image.shape[2:] for image in parity.samples(None, [])} == set(parity.IMAGE_SIZES["cvnet"])


@pytest.mark.parametrize("photos", [0, 8])
def test_samples_for_plans_have_the_extremes_of_the_planned_sizes(photos):
    planned = [(64, 96), (72, 96), (48, 96), (96, 64)]
    rng = np.random.default_rng(0)
    images = parity.samples(planned, [rng.standard_normal((1, 3, 40, 50), np.float32) for _ in range(photos)])
    assert {image.shape for image in images} == {(1, 3, *size) for size in planned}
    assert len(images) == (photos or 4)


def test_nan_is_a_difference(cases):
    class Broken:
        def run(self, _feeds):
            return {"descriptor": np.full((2, 2048), np.nan, np.float32)}

    with pytest.raises(ExportError, match="differs from PyTorch by nan"):
        parity.check(Broken(), cases["descriptor"], "fp32")


def test_an_engine_that_rounds_keys_may_differ_by_as_much(cases):
    class Apart:
        def run(self, _feeds):
            return {name: array + 1.5e-5 * (name == "score") for name, array in cases["reranker"][0].want.items()}

    with pytest.raises(ExportError, match=r"score differs from PyTorch by 1.5e-05; expected at most 1e-05"):
        parity.check(Apart(), cases["reranker"][:1], "fp32")
    parity.check(Apart(), cases["reranker"][:1], "fp32", half_keys=True)


@pytest.fixture(scope="module")
def candidates(bundle, seeded_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    native = Artifacts(folder, seeded_model(50), "fp32", [], [], (), print).file("reranker", "native")
    return {"native": native, "onnxruntime": bundle / "reranker.onnx"}


def test_the_fastest_that_agrees_is_chosen(cases, candidates):
    choice = choose("reranker", candidates, cases["reranker"], "fp32", (160, 160))
    assert choice.timings_ms.keys() == {"native", "onnxruntime"}
    assert choice.backend == min(choice.timings_ms, key=choice.timings_ms.get)
    other = max(choice.timings_ms, key=choice.timings_ms.get)
    assert choice.runner_up == (other, candidates[other])


def test_native_weights_are_accompanied_by_the_next_best_graph(candidates):
    others = {name: file for name, file in candidates.items() if name != "native"}
    chosen = Choice("native", candidates["native"], {}, {}, {}, *others.items())
    assert fallback_of(chosen, "fp32") == graph_file("reranker", "onnxruntime", candidates["onnxruntime"], "fp32")
    assert fallback_of(replace(chosen, backend="onnxruntime"), "fp32") is None
    assert fallback_of(replace(chosen, runner_up=None), "fp32") is None


def test_a_single_candidate_is_not_timed(cases, candidates):
    only = {"onnxruntime": candidates["onnxruntime"]}
    assert choose("reranker", only, cases["reranker"], "fp32", (160, 160)).timings_ms == {}


def test_no_speed_makes_up_for_a_difference(changed_cases, candidates):
    with pytest.raises(ExportError, match="logits differs"):
        choose("reranker", candidates, changed_cases["reranker"], "fp32", (160, 160))
