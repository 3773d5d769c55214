"""Canvas of a façade: a flat drawing with depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.random import Generator

from cvnet_engine.engine.contract import Array
from scenes.facade import Facade
from scenes.materials import CANVAS_PX_PER_M, Colour
from scenes.projection import upright

Paint = Colour | Array  # one colour, or a texture (H, W, 3) of the size of the canvas
Outline = Array | Sequence[tuple[float, float] | Array]  # (N, 2) metres


class Relief:
    """A flat drawing with depth, in metres: colour, coverage, and height over the wall, which determines shading."""

    def __init__(self, width_m: float, height_m: float, margin_m: float = 1.0) -> None:
        self.margin_m, self.top_m = margin_m, height_m
        shape = round(height_m * CANVAS_PX_PER_M), round((width_m + 2 * margin_m) * CANVAS_PX_PER_M)
        self.colour = np.zeros((*shape, 3), np.uint8)  # (H, W, 3)
        self.cover = np.zeros(shape, np.uint8)  # (H, W), 0 to 255
        self.height = np.zeros(shape, np.float32)  # (H, W) metres
        self.wall = self.colour  # (H, W, 3) texture of the wall, for parts of the same material

    def fill(self, outline: Outline, paint: Paint, height_m: float = 0.0, clip: Outline | None = None) -> None:
        """Paint the inside of an outline, (N, 2) metres, and of `clip`."""
        points = self._pixels(outline)
        x, y, w, h = cv2.boundingRect(np.round(points).astype(np.int32))
        rows, cols = slice(max(y - 1, 0), max(y + h + 1, 0)), slice(max(x - 1, 0), max(x + w + 1, 0))
        inside = self._coverage(points, rows, cols)
        if clip is not None:
            inside = np.minimum(inside, self._coverage(self._pixels(clip), rows, cols))
        if not inside.size:
            return
        alpha = inside[..., None].astype(np.float32) / 255
        ink = paint[rows, cols] if isinstance(paint, np.ndarray) else np.array(paint, np.float32)
        self.colour[rows, cols] = self.colour[rows, cols] * (1 - alpha) + ink * alpha + 0.5
        self.cover[rows, cols] = np.maximum(self.cover[rows, cols], inside)
        self.height[rows, cols][inside > 127] = height_m

    def rect(
        self, x: float, y: float, w: float, h: float, paint: Paint, height_m: float = 0.0, clip: Outline | None = None
    ) -> None:
        """Paint a rectangle whose lower left corner is (x, y)."""
        self.fill([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], paint, height_m, clip)

    def triangle(self, x: float, y: float, half: float, h: float, paint: Paint, height_m: float = 0.0) -> None:
        """Paint a triangle of height `h` on a base from x - half to x + half."""
        self.fill([(x - half, y), (x + half, y), (x, y + h)], paint, height_m)

    def disc(self, x: float, y: float, radius: float, paint: Colour, height_m: float = 0.0) -> None:
        self.fill(ellipse(x, y, radius, radius), paint, height_m)

    def stroke(self, path: Outline, width: float, paint: Colour, height_m: float = 0.0) -> None:
        """Paint a line of this width through (N, 2) points."""
        for a, b in pairwise(np.asarray(path)):
            along = (b - a) / max(np.hypot(*(b - a)), 1e-6)
            side = np.array([-along[1], along[0]]) * width / 2
            self.fill([a + side, b + side, b - side, a - side], paint, height_m)

    def picture(self) -> Array:
        """Return colour and coverage, (H, W, 4) uint8."""
        return np.dstack([self.colour, self.cover])

    def plane(self, x_m: float) -> Array:
        """Return the plane (4, 3) of the canvas, see `projection.upright`; x is the front's left edge."""
        return upright(1 / CANVAS_PX_PER_M, x_m - self.margin_m, self.top_m)

    def _pixels(self, outline: Outline) -> Array:
        return (np.asarray(outline) * [1, -1] + [self.margin_m, self.top_m]) * CANVAS_PX_PER_M

    def _coverage(self, points: Array, rows: slice, cols: slice) -> Array:
        inside = np.zeros(self.cover[rows, cols].shape, np.uint8)
        if inside.size:
            fixed = np.round((points - [cols.start, rows.start]) * 16).astype(np.int32)
            cv2.fillPoly(inside, [fixed], 255, cv2.LINE_AA, shift=4)
        return inside


Part = Callable[[Relief, Facade, Generator], None]  # draws one part of a façade on its relief


def by_name(*parts: Part) -> dict[str, Part]:
    """Return drawing functions by name, in this order."""
    return {part.__name__: part for part in parts}


def ellipse(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 2 * np.pi, n: int = 28) -> Array:
    angle = np.linspace(start, end, n)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1)


def opening(kind: str, x: float, y: float, w: float, h: float) -> Array:
    """Return the outline of a window, door or niche, centred on x and standing on y."""
    if kind == "oculus":
        return ellipse(x, y + h / 2, min(w, h) / 2, min(w, h) / 2)
    t = np.linspace(1, -1, 15)
    rise = {
        "flat": 0 * t,
        "round": np.sqrt(1 - t**2) * w / 2,
        "segmental": (1 - t**2) * 0.16 * w,
        "pointed": np.sqrt(np.maximum(1 - ((1 + abs(t)) / 2) ** 2, 0)) * w,
    }[kind]
    arch = np.stack([x + t * w / 2, y + h - rise.max() + rise], 1)
    return np.vstack([[(x - w / 2, y), (x + w / 2, y)], arch])
