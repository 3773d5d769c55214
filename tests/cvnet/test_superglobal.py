"""SuperGlobal's descriptor in PyTorch against outputs of its published code."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from cvnet import checkpoint
from cvnet.superglobal import FLOOR, SuperGlobal, bottleneck, global_mean, over_scales, regional_mean
from engine.images import normalise, read
from engine.retrieval.superglobal import network_inputs
from tests.golden_inputs import GOLDEN, SHARED

RUN = SHARED / "superglobal" / "superglobal_r50_seed0_landmarks-tiny.npz"
PHOTOS = SHARED / "data" / "landmarks-tiny"


@cache
def units() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in np.load(GOLDEN / "superglobal_units.npz").items()}


def test_floor_of_activations():
    torch.testing.assert_close(units()["map_signed"].clamp(min=FLOOR), units()["relup"], rtol=0, atol=0)


@pytest.mark.parametrize(("given", "want"), [("map_signed", "rgem"), ("map_3x3", "rgem_3x3")])
def test_regional_mean(given, want):
    torch.testing.assert_close(regional_mean(units()[given].clamp(min=0)), units()[want], rtol=0, atol=5e-7)


def test_global_mean():
    torch.testing.assert_close(global_mean(units()["map_signed"].clamp(min=0)), units()["gemp"], rtol=0, atol=5e-7)
    torch.testing.assert_close(global_mean(units()["rgem"]), units()["gemp_of_rgem"], rtol=0, atol=5e-7)
    torch.testing.assert_close(global_mean(torch.zeros(1, 4, 3, 3)), units()["gemp_of_zero"])


def test_a_bottleneck_without_floors_is_cvnets(seeded_model):
    block, x = seeded_model(50).backbone.trunk.layer2[0], torch.randn(1, 256, 9, 7)
    torch.testing.assert_close(bottleneck(block, x, 0.0, 0.0), block(x), rtol=0, atol=0)


@pytest.fixture(scope="module")
def run() -> dict[str, np.ndarray]:
    if not RUN.is_file():
        pytest.skip(f"no {RUN.name} beside the project")
    return dict(np.load(RUN))


@pytest.fixture(scope="module")
def first_image():
    """The first database image, normalised."""
    if not PHOTOS.is_dir():
        pytest.skip(f"no {PHOTOS.name} beside the project")
    from benchmarks.accuracy.dataset import load

    return normalise(read(load(PHOTOS.parent, PHOTOS.name).images[0]))


def test_published_descriptor_of_a_photo(seeded_model, run, first_image):
    model = SuperGlobal(seeded_model(50).backbone)
    with torch.inference_mode():
        scales = torch.cat([model(torch.from_numpy(x)) for x in network_inputs(first_image)])
    for scale in range(3):
        published = torch.nn.functional.normalize(torch.from_numpy(run[f"db0_scale{scale}_fc"]), dim=0)
        torch.testing.assert_close(scales[scale], published, rtol=0, atol=1e-6)
    torch.testing.assert_close(over_scales(scales), torch.from_numpy(run["desc_db"][0]), rtol=0, atol=1e-6)


def test_published_descriptor_where_the_bias_does_not_drown_the_rest(run, first_image):
    """With a 256th of the seeded bias, leaving out any part of the head shows a hundred times the tolerance."""
    backbone = checkpoint.load("seeded:0", 50).backbone
    backbone.whiten.bias.div_(256)
    model = SuperGlobal(backbone)
    with torch.inference_mode():
        scales = torch.cat([model(torch.from_numpy(x)) for x in network_inputs(first_image)])
    torch.testing.assert_close(over_scales(scales), torch.from_numpy(run["b256_default_db0"]), rtol=0, atol=2e-6)
    torch.testing.assert_close(scales[1], torch.from_numpy(run["b256_scales1_db0"]), rtol=0, atol=2e-6)
