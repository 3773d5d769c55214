"""SuperGlobal's descriptor in PyTorch against outputs of its published code."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from cvnet_engine.cvnet import checkpoint
from cvnet_engine.cvnet.superglobal import FLOOR, bottleneck, floored, global_mean, over_scales, regional_mean
from cvnet_engine.engine import images
from cvnet_engine.engine.geometry import IMAGE_SCALES
from cvnet_engine.engine.retrieval.superglobal import network_input
from tests.golden_inputs import GOLDEN, SHARED

RUN = SHARED / "superglobal" / "superglobal_r50_seed0_landmarks-tiny.npz"
PHOTOS = SHARED / "data" / "landmarks-tiny"


@cache
def units() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in np.load(GOLDEN / "superglobal_units.npz").items()}


def test_floor_of_activations():
    torch.testing.assert_close(floored(units()["map_signed"], FLOOR), units()["relup"], rtol=0, atol=0)


@pytest.mark.parametrize(("given", "want"), [("map_signed", "rgem"), ("map_3x3", "rgem_3x3")])
def test_regional_mean(given, want):
    torch.testing.assert_close(regional_mean(units()[given].clamp(min=0)), units()[want], rtol=0, atol=5e-7)


def test_global_mean():
    torch.testing.assert_close(global_mean(units()["map_signed"].clamp(min=0)), units()["gemp"], rtol=0, atol=5e-7)
    torch.testing.assert_close(global_mean(units()["rgem"]), units()["gemp_of_rgem"], rtol=0, atol=5e-7)
    torch.testing.assert_close(global_mean(torch.zeros(1, 4, 3, 3)), units()["gemp_of_zero"])


def test_a_bottleneck_without_floors_equals_that_of_cvnet(seeded_model):
    block, x = seeded_model(50).backbone.trunk.layer2[0], torch.randn(1, 256, 9, 7)
    torch.testing.assert_close(bottleneck(block, x, 0.0, 0.0), block(x), rtol=0, atol=0)


@pytest.fixture(scope="module")
def run() -> dict[str, np.ndarray]:
    if not RUN.is_file():
        pytest.skip(f"no {RUN.name} beside the project")
    return dict(np.load(RUN))


@pytest.fixture(scope="module")
def first_image():
    """The first database image."""
    if not PHOTOS.is_dir():
        pytest.skip(f"no {PHOTOS.name} beside the project")
    from cvnet_engine.benchmarks.accuracy.dataset import load

    return images.load(load(PHOTOS.parent, PHOTOS.name).images[0])


def described(model, image) -> torch.Tensor:
    """Descriptors (3, 2048) of an image's scales."""
    inputs = [torch.from_numpy(network_input(image, scale)) for scale in IMAGE_SCALES]
    with torch.inference_mode():
        return torch.cat([model.backbone.describe(x) for x in inputs])


def test_published_descriptor_of_a_photo(run, first_image):
    scales = described(checkpoint.load("seeded:0", 50, descriptor="superglobal"), first_image)
    for scale in range(3):
        published = torch.nn.functional.normalize(torch.from_numpy(run[f"db0_scale{scale}_fc"]), dim=0)
        torch.testing.assert_close(scales[scale], published, rtol=0, atol=1e-6)
    torch.testing.assert_close(over_scales(scales), torch.from_numpy(run["desc_db"][0]), rtol=0, atol=1e-6)


def test_published_descriptor_with_a_smaller_bias(run, first_image):
    """With a 256th of the seeded bias, an omission of any part of the head exceeds the tolerance 100 times."""
    model = checkpoint.load("seeded:0", 50, descriptor="superglobal")
    model.backbone.whiten.bias.div_(256)
    scales = described(model, first_image)
    torch.testing.assert_close(over_scales(scales), torch.from_numpy(run["b256_default_db0"]), rtol=0, atol=2e-6)
    torch.testing.assert_close(scales[1], torch.from_numpy(run["b256_scales1_db0"]), rtol=0, atol=2e-6)


def test_weights_and_local_map_equal_those_of_cvnet(seeded_model):
    model, image = checkpoint.load("seeded:0", 50, descriptor="superglobal"), torch.randn(1, 3, 70, 97)
    assert checkpoint.digest(model) == checkpoint.digest(seeded_model(50))
    with torch.inference_mode():
        (descriptor, feature_map), (other, published) = model(image), seeded_model(50)(image)
        torch.testing.assert_close(model.backbone.describe(image), descriptor, rtol=0, atol=0)
    torch.testing.assert_close(feature_map, published, rtol=0, atol=0)
    assert (descriptor - other).norm() > 1e-2
