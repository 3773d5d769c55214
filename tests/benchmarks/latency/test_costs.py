"""Counted costs against counts by hand and against PyTorch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cvnet_engine.benchmarks.latency import costs
from cvnet_engine.benchmarks.latency.costs import Network
from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine.geometry import map_size, unit_map_sizes
from cvnet_engine.export.reranker import UnitMaps
from training.factored_reranker import FactoredReranker


def counted(call, *arguments):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        call(*arguments)
    return counter.get_total_flops()


@pytest.fixture(scope="module")
def model():
    with torch.device("meta"):
        return CVNet(50).eval()


def test_pair_by_hand():
    """64x48 positions a side, in 10⁹ multiplications: DESIGN of the factored form, term by term."""
    positions, even = 64 * 48, 32 * 24
    correlation = 2 * (3 * even) * (3 * positions) * 256
    block1 = 2 * even * even * 9 * 16 * 25
    block2 = 2 * (even * even * 16 * 16 * 9 + 192 * 192 * 16 * 32 * 9)
    block3 = 2 * (2 * 192 * 192 * 32 * 32 * 9 + 48 * 48 * 32 * 64 * 9)
    block4 = 2 * 48 * 48 * (64 * 64 + 64 * 64 + 64 * 128) * 9
    found = costs.pair((1024, 768), (1024, 768))
    assert found.flop == 2 * (correlation + block1 + block2 + block3 + block4)
    assert found.flop == pytest.approx(41e9, rel=0.02)
    assert found.bytes == 2 * 2 * 256 * (32 * 24 + 45 * 34 + 64 * 48)


@pytest.mark.parametrize(("query", "key"), [((160, 224), (97, 131)), ((33, 200), (160, 96))])
def test_pair_as_the_exported_form_computes_it(model, query, key):
    def maps(image):
        return [torch.empty(1, 256, h, w, device="meta") for h, w in unit_map_sizes(map_size(image))]

    learner = 2 * (128 * 128 + 128 * 2)  # the last layers, which are left out of the count
    found = counted(FactoredReranker(model.reranker), *maps(query), *maps(key))
    assert costs.pair(query, key).flop == found - learner


@pytest.mark.parametrize(("depth", "macs"), [(50, 4.089e9), (101, 7.801e9)])
def test_trunk_of_a_224_px_image(depth, macs):
    """As commonly stated, with the classifier of 2048x1000 that ours has not."""
    trunk = sum(costs.convolution(*layer) for layer in costs.convolutions(depth, (224, 224)))
    assert trunk / 2 + 2048 * 1000 == pytest.approx(macs, rel=1e-3)


@pytest.mark.parametrize("descriptor", ["cvnet", "superglobal"])
@pytest.mark.parametrize("size", [(160, 224), (97, 131)])
def test_features_as_pytorch_counts_them(descriptor, size):
    with torch.device("meta"):
        model = CVNet(50, descriptor).eval()
    network, image = Network(50, descriptor), torch.empty(1, 3, *size, device="meta")
    assert costs.descriptor(network, size).flop == counted(model.backbone.describe, image)
    feature_map = torch.empty(1, 1024, *costs.map_size(size), device="meta")
    maps = counted(UnitMaps(model.reranker), feature_map)
    assert costs.features(network, size).flop == counted(model.backbone, image) + maps


@pytest.mark.parametrize(
    ("descriptor", "image", "others"),
    [
        ("cvnet", (1024, 768), [(724, 543), (1448, 1086)]),
        ("cvnet", (240, 240), [(170, 170), (339, 339)]),
        ("superglobal", (240, 240), [(169, 169), (339, 339)]),  # cut, not rounded
    ],
)
def test_extract_is_the_sum_of_its_scales(descriptor, image, others):
    network = Network(50, descriptor)
    scales = [costs.descriptor(network, size) for size in others]
    assert costs.extract(network, image) == sum(scales, costs.features(network, image))


@pytest.mark.parametrize(("descriptor", "gflop"), [("cvnet", 476), ("superglobal", 575)])
def test_extract_as_decision_024_has_it(descriptor, gflop):
    assert costs.extract(Network(50, descriptor), (1024, 768)).flop == pytest.approx(gflop * 1e9, rel=1e-3)


def test_bytes_that_must_move():
    assert costs.search(10**6, costs.HALF).bytes == 4.096e9
    assert costs.decode((480, 640), 1000).bytes == 1000 + 3 * 480 * 640
    assert costs.gallery_read((1024, 768)).bytes == pytest.approx(2 * 2.75e6, rel=0.01)
