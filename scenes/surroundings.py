"""Surroundings of a building: sky, distant skyline, and the street."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.random import Generator

from cvnet_engine.engine.contract import Array
from scenes.materials import Colour, shade, smooth_noise
from scenes.projection import on_plane
from scenes.scene import Scene

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


def draw_street(picture: Array, camera: Array, scene: Scene) -> Array:
    """Draw roadway, kerb and pavement, fading into the distance."""
    rng = np.random.default_rng(scene.seed)
    plane = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]], float)  # (x, z) metres
    x, z, front = on_plane(camera @ plane, picture.shape[:2])
    kerb = rng.uniform(2.2, 4.5)
    slab = rng.uniform(0.6, 1.3)
    road, paved = np.array(scene.street, np.float32), np.array(scene.pavement, np.float32)
    ground = np.where(((z > kerb) | (z < -30))[..., None], road, paved)
    joints = ((x % slab < 0.05) | (z % slab < 0.05)) & (z < kerb)
    u, v = ((metres * 24 % 512).astype(np.float32) for metres in (x, z))
    grain = cv2.remap(smooth_noise(rng, (512, 512), 10, 4), u, v, cv2.INTER_LINEAR)
    near = np.exp(-np.hypot(x - scene.main.width_m / 2, z) / 60)
    light = (1 + 0.06 * grain * near) * np.where(joints, 1 - 0.2 * near, 1) * np.where(abs(z - kerb) < 0.12, 0.7, 1)
    light *= 1 - 0.4 * np.exp(-np.clip(z, 0, None) / 0.8) * (z > 0)  # shade at the foot of the wall
    marks = (abs(z - kerb - 4) < 0.08) & (x % 4 < 2.2)
    ground = np.where(marks[..., None], 205, ground * light[..., None])
    far = np.exp(-np.clip(-z - 25, 0, None) / 80)[..., None]
    return np.where(front[..., None], ground * far + 208 * (1 - far), picture).astype(np.float32)
