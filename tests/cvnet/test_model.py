"""The PyTorch reference against outputs of the published code."""

import numpy as np
import pytest
import torch

from tests.golden_inputs import IMAGE_SIZES, PAIR_SIZES, golden_image, golden_pair

pytestmark = pytest.mark.parametrize("depth", [50, 101])


@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_descriptor_and_feature_map(depth, size, seeded_model, golden):
    tag = "x".join(map(str, size))
    with torch.inference_mode():
        descriptor, fmap = seeded_model(depth)(torch.from_numpy(golden_image(*size)))
    want = golden(depth)
    np.testing.assert_allclose(descriptor[0], want[f"descriptor_{tag}"], atol=1e-5)
    assert fmap.shape == tuple(want[f"res4_shape_{tag}"])
    np.testing.assert_allclose([fmap.mean(), fmap.std(), fmap.min(), fmap.max()], want[f"res4_stats_{tag}"], rtol=1e-5)
    np.testing.assert_allclose(fmap[0, ::16, :3, :3], want[f"res4_corner_{tag}"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", PAIR_SIZES)
def test_pair_score(depth, size, seeded_model, golden):
    tag = "{}x{}_{}x{}".format(*size)
    reranker = seeded_model(depth).reranker
    query, key = map(torch.from_numpy, golden_pair(*size))
    with torch.inference_mode():
        correlation = reranker.correlation(query, key)
        logits = reranker.learner(correlation)[0]
    want = golden(depth)
    np.testing.assert_allclose(correlation.mean(dim=(0, 2, 3, 4, 5)), want[f"corr_mean_{tag}"], atol=1e-6)
    np.testing.assert_allclose(logits, want[f"logits_{tag}"], atol=1e-4)
    np.testing.assert_allclose(logits.softmax(0)[1], want[f"score_{tag}"], atol=1e-5)


@pytest.mark.parametrize("key_size", [(192, 144), (160, 224)])
def test_image_to_score(depth, key_size, seeded_model, golden):
    model = seeded_model(depth)
    with torch.inference_mode():
        _, query = model(torch.from_numpy(golden_image(160, 224)))
        _, key = model(torch.from_numpy(golden_image(*key_size)))
    want = golden(depth)["image_score_160x224_{}x{}".format(*key_size)]
    np.testing.assert_allclose(model.score(query, key), want, atol=1e-5)
