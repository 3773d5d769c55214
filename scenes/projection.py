"""Projection of flat canvases in space by a pinhole camera. Homogeneous matrices map canvas pixels to world metres."""

from __future__ import annotations

import cv2
import numpy as np

from cvnet_engine.engine.contract import Array


def upright(metres_per_px: float, x_m: float, top_m: float, z_m: float = 0.0) -> Array:
    """Return the plane (4, 3) of a canvas that stands parallel to the façade, with its upper left corner there."""
    k = metres_per_px
    return np.array([[k, 0, x_m], [0, -k, top_m], [0, 0, z_m], [0, 0, 1]])


def project(camera: Array, points: Array) -> Array:
    """Project (N, 3) metres to (2, N) px."""
    u, v, w = camera @ np.vstack([points.T, np.ones(len(points))])
    return np.stack([u / w, v / w])


def on_plane(to_pixels: Array, size: tuple[int, int]) -> tuple[Array, Array, Array]:
    """Return the plane coordinates x, y (H, W) of each pixel, and whether they are in front of the camera."""
    inverse = np.linalg.inv(to_pixels).astype(np.float32)
    u, v = np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32)[:, None]
    x, y, w = (inverse[i, 0] * u + (inverse[i, 1] * v + inverse[i, 2]) for i in range(3))
    front = w > 1e-7
    w[~front] = 1
    return x / w, y / w, front


def see(canvas: Array, plane: Array, camera: Array, size: tuple[int, int]) -> Array:
    """Return a flat canvas as seen by the camera, (H, W, 4) uint8, colour premultiplied by coverage."""
    canvas, plane = _shrunk(canvas, plane, camera)
    x, y, front = on_plane(camera @ plane, size)
    x[~front] = -9e3  # outside the canvas
    solid = canvas.copy()
    solid[..., :3] = canvas[..., :3] * (canvas[..., 3:] / np.float32(255))
    return cv2.remap(solid, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, 0))


def _shrunk(canvas: Array, plane: Array, camera: Array) -> tuple[Array, Array]:
    """Downscale the canvas to about the image resolution where it appears largest, which avoids aliasing."""
    h, w = canvas.shape[:2]
    corners = (plane @ np.array([(0, 0, 1), (w, 0, 1), (w, h, 1), (0, h, 1)]).T)[:3].T
    u, v = project(camera, corners)
    in_front = (camera @ np.vstack([corners.T, np.ones(4)]))[2].min() > 0.5
    span = max(np.hypot(u[0] - u[3], v[0] - v[3]), np.hypot(u[1] - u[2], v[1] - v[2])) / h
    factor = min(1.25 * span, 1.0) if in_front else 1.0
    small = cv2.resize(canvas, (max(round(w * factor), 2), max(round(h * factor), 2)), interpolation=cv2.INTER_AREA)
    return small, plane @ np.diag([w / small.shape[1], h / small.shape[0], 1])
