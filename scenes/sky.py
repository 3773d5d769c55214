"""Background of a view: sky and distant skyline."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.random import Generator

from cvnet_engine.engine.contract import Array
from scenes.materials import smooth_noise
from scenes.palette import Colour, shade

SKIES: dict[str, tuple[Colour, Colour, float]] = {  # zenith, horizon, clouds
    "clear": ((214, 156, 92), (240, 224, 200), 0.3),
    "cloudy": ((212, 172, 126), (236, 228, 216), 0.9),
    "overcast": ((208, 200, 192), (232, 228, 224), 0.5),
    "evening": ((176, 134, 118), (160, 200, 246), 0.5),
    "haze": ((228, 206, 180), (238, 234, 228), 0.15),
}


def draw_sky(rng: Generator, size: tuple[int, int], kind: str) -> Array:
    """Draw the sky, (H, W, 3) float32."""
    zenith, horizon, clouds = SKIES[kind]
    t = np.linspace(0, 1, size[0], dtype=np.float32)[:, None, None] ** 0.8
    sky = np.array(zenith, np.float32) * (1 - t) + np.array(horizon, np.float32) * t
    cover = smooth_noise(rng, (size[0] // 4 + 1, size[1] // 8 + 1), size[1] / 40, 4)
    cover = cv2.resize(np.clip(cover * 0.5, 0, 1), size[::-1])[..., None] * clouds
    covered: Array = sky * (1 - cover) + np.float32(240) * cover
    return covered


@lru_cache(maxsize=6)
def draw_skyline(seed: tuple[int, ...]) -> Array:
    """Draw distant roofs and trees, (H, W, 4), at 4 px per metre."""
    rng = np.random.default_rng(seed)
    canvas = np.zeros((108, 1024, 4), np.uint8)
    for x in range(0, 1024, 26):
        top, wide, tone = int(108 - 4 * rng.uniform(5, 15)), int(rng.uniform(20, 44)), rng.uniform(150, 195)
        cv2.rectangle(canvas, (x, top), (x + wide, 108), (tone + 12, tone + 4, tone, 255), -1)
        if rng.random() < 0.5:
            roof = np.array([(x, top), (x + wide, top), (x + wide // 2, top - 14)])
            cv2.fillPoly(canvas, [roof], (tone - 14, tone - 12, tone - 4, 255))
        for wx in range(x + 4, x + wide - 3, 8):
            for wy in range(top + 6, 104, 12):
                cv2.rectangle(canvas, (wx, wy), (wx + 3, wy + 5), (tone - 26, tone - 34, tone - 40, 255), -1)
    for _ in range(90):
        x, radius, tone = int(rng.integers(0, 1024)), int(rng.integers(6, 15)), rng.uniform(0.8, 1.15)
        cv2.circle(canvas, (x, 108 - radius // 2), radius, (*shade((112, 140, 118), tone), 255), -1)
    return canvas
