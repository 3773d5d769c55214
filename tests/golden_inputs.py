"""Seeded inputs of the golden files: normalised images and stage-3 maps, from numpy's PCG64 alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cvnet_engine.cvnet.built_in import generator

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared"  # photos and larger golden files; tests that need them may be skipped
IMAGE_SIZES = ((160, 224), (192, 144), (97, 131))
PAIR_SIZES = ((8, 8, 8, 8), (10, 14, 12, 9), (7, 9, 9, 9), (16, 21, 15, 20), (24, 32, 32, 24))


def image(name: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    """A normalised network input, float32 (1, 3, height, width): smooth blobs plus noise, std about 1."""
    rng = generator(seed, name)
    coarse = rng.standard_normal((3, height // 16 + 2, width // 16 + 2))
    up = np.kron(coarse, np.ones((1, 16, 16)))[:, :height, :width]
    return (0.8 * up + 0.4 * rng.standard_normal((3, height, width)))[None].astype(np.float32)


def feature_map(name: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    """A stage-3 feature map, float32 (1, 1024, height, width): signed values."""
    return generator(seed, name).standard_normal((1, 1024, height, width)).astype(np.float32)


def related_feature_map(base: np.ndarray, name: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    """`base` cropped or tiled to height x width plus noise, so that the pair correlates."""
    tiles = (1, 1, -(-height // base.shape[2]), -(-width // base.shape[3]))
    return (np.tile(base, tiles)[:, :, :height, :width] + 0.7 * feature_map(name, height, width, seed)).astype(
        np.float32
    )


def golden_image(height: int, width: int) -> np.ndarray:
    """The image whose descriptor is stored as `descriptor_{height}x{width}`."""
    return image(f"img{height}x{width}", height, width)


def golden_pair(hq: int, wq: int, hk: int, wk: int) -> tuple[np.ndarray, np.ndarray]:
    """The two maps whose score is stored as `score_{hq}x{wq}_{hk}x{wk}`."""
    query = feature_map(f"q{hq}x{wq}", hq, wq)
    return query, related_feature_map(query, f"k{hk}x{wk}", hk, wk)
