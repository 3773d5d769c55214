"""Ground of a view: roadway, kerb and pavement."""

from __future__ import annotations

import cv2
import numpy as np

from cvnet_engine.engine.contract import Array
from scenes.materials import smooth_noise
from scenes.projection import on_plane
from scenes.scene import Scene


def draw_street(picture: Array, camera: Array, scene: Scene) -> Array:
    """Draw roadway, kerb and pavement, fading into the distance."""
    rng = np.random.default_rng(scene.seed)
    size = picture.shape[:2]
    plane = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]], float)  # (x, z) metres
    x, z, front = on_plane(camera @ plane, size)
    kerb = rng.uniform(2.2, 4.5)
    slab = rng.uniform(0.6, 1.3)
    road, paved = np.array(scene.street, np.float32), np.array(scene.pavement, np.float32)
    ground = np.where(((z > kerb) | (z < -30))[..., None], road, paved)
    joints = ((x % slab < 0.05) | (z % slab < 0.05)) & (z < kerb)
    grain = cv2.remap(
        smooth_noise(rng, (512, 512), 10, 4),
        (x * 24 % 512).astype(np.float32),
        (z * 24 % 512).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    near = np.exp(-np.hypot(x - scene.main.width_m / 2, z) / 60)
    light = (1 + 0.06 * grain * near) * np.where(joints, 1 - 0.2 * near, 1) * np.where(abs(z - kerb) < 0.12, 0.7, 1)
    light *= 1 - 0.4 * np.exp(-np.clip(z, 0, None) / 0.8) * (z > 0)  # shade at the foot of the wall
    marks = (abs(z - kerb - 4) < 0.08) & (x % 4 < 2.2)
    ground = np.where(marks[..., None], 205, ground * light[..., None])
    far = np.exp(-np.clip(-z - 25, 0, None) / 80)[..., None]
    return np.where(front[..., None], ground * far + 208 * (1 - far), picture).astype(np.float32)
