"""Image of a view of a scene: layers in space, sunlight, lens and sensor."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.random import Generator

from cvnet_engine.engine.contract import Array
from scenes.building import draw_flank, draw_front
from scenes.facade import Facade
from scenes.materials import CANVAS_PX_PER_M
from scenes.occluders import draw_occluders
from scenes.projection import see, upright
from scenes.relief import Relief
from scenes.scene import Scene
from scenes.surroundings import draw_sky, draw_skyline, draw_street
from scenes.view import View

SUPERSAMPLING = 2


def render(scene: Scene, view: View) -> Array:
    """Render the photograph, (H, W, 3) uint8, BGR."""
    rng = np.random.default_rng(view.seed)
    size = view.size[0] * SUPERSAMPLING, view.size[1] * SUPERSAMPLING
    camera = view.camera(scene.main, size)  # (3, 4)
    backdrop = draw_street(draw_sky(rng, view.size, view.sky), view.camera(scene.main, view.size), scene)
    picture = cv2.resize(backdrop, size[::-1])
    for layer, plane in _planes(scene, view):
        picture = _over(picture, see(layer, plane, camera, size))
    picture = _over(picture, draw_occluders(view.occluders, camera, size))
    return _develop(rng, cv2.resize(picture, view.size[::-1], interpolation=cv2.INTER_AREA), view)


def silhouette(scene: Scene, view: View) -> Array:
    """Return the visible pixels of the building's front, (H, W) bool, without those that occluders hide."""
    camera = view.camera(scene.main, view.size)
    relief = draw_front(scene.main)
    front = see(relief.picture(), relief.plane(0.0), camera, view.size)[..., 3]
    return (front > 127) & (draw_occluders(view.occluders, camera, view.size)[..., 3] < 128)


def _planes(scene: Scene, view: View) -> Iterable[tuple[Array, Array]]:
    """Yield the layers of the scene, back to front: (canvas (H, W, 4) uint8, canvas to world (4, 3))."""
    yield draw_skyline(scene.seed), upright(0.25, -128.0, 27.0, -55.0)
    main = scene.main
    for house, side, x in ((scene.left, -1, 0.0), (scene.right, 1, main.width_m)):
        if house is None:
            yield _side_wall(main, scene.depth_m, side, x, view)
    if scene.left is not None:
        yield _front(scene.left, -scene.left.width_m, view)
    if scene.right is not None:
        yield _front(scene.right, main.width_m, view)
    yield _front(main, 0.0, view)


def _side_wall(facade: Facade, depth_m: float, side: int, x_m: float, view: View) -> tuple[Array, Array]:
    """Return the layer of a free-standing building's bare flank at x, lit or in shade; it runs back from the street."""
    wall = draw_flank(facade, depth_m)
    lit = 0.72 + 0.28 * view.sunlight * np.sign(view.sun_deg * side) - 0.1
    shaded = np.clip(wall[..., :3] * lit, 0, 255).astype(np.uint8)
    k = 1 / CANVAS_PX_PER_M
    return np.dstack([shaded, wall[..., 3]]), np.array(
        [[0, 0, x_m], [0, -k, facade.eaves_m], [k, 0, -depth_m], [0, 0, 1]]
    )


def _front(facade: Facade, x_m: float, view: View) -> tuple[Array, Array]:
    """Return the layer of a front whose left edge is at x."""
    relief = draw_front(facade)
    return _sunlit(relief, view), relief.plane(x_m)


def _sunlit(relief: Relief, view: View) -> Array:
    """Return a front under the view's sun, (H, W, 4): slopes that face it are brighter, protrusions cast shadows."""
    turn = np.radians(view.sun_deg)
    toward = np.array([np.sin(turn), -np.cos(turn)], np.float32)  # direction of the sun on the canvas, y down
    height = cv2.resize(relief.height, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)  # half resolution suffices
    px_per_m = CANVAS_PX_PER_M / 2
    slope = cv2.Sobel(height, -1, 1, 0, scale=0.125) * toward[0] + cv2.Sobel(height, -1, 0, 1, scale=0.125) * toward[1]
    facing = np.clip(-slope * px_per_m / 4, -0.5, 0.6) * (0.35 + 0.65 * view.sunlight)
    shadow = np.zeros_like(height)
    for step in range(1, 15):
        shift = np.array([[1, 0, -toward[0] * step], [0, 1, -toward[1] * step]])
        blocker = cv2.warpAffine(height, shift, height.shape[::-1])
        shadow[blocker - 0.9 * step / px_per_m > height + 0.02] = 1
    depth = 0.12 + 0.4 * view.sunlight
    light = (1 + facing) * (1 - depth * cv2.blur(shadow, (2, 2))) * (0.98 + 0.16 * view.sunlight)
    light = cv2.resize(light, relief.height.shape[::-1])[..., None]
    return np.dstack([np.minimum(relief.colour * light, 255).astype(np.uint8), relief.cover])


def _over(picture: Array, layer: Array) -> Array:
    """Composite a premultiplied (H, W, 4) layer on a (H, W, 3) image."""
    rows, cols = np.flatnonzero(layer[..., 3].any(1)), np.flatnonzero(layer[..., 3].any(0))
    if rows.size:
        box = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
        picture[box] = picture[box] * ((255 - layer[box][..., 3:]) / np.float32(255)) + layer[box][..., :3]
    return picture


def _develop(rng: Generator, picture: Array, view: View) -> Array:
    """Apply light, lens and sensor: (H, W, 3) float -> uint8."""
    h, w = picture.shape[:2]
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    strength, direction = view.shade
    across = x * np.cos(np.radians(direction)) + y * np.sin(np.radians(direction))
    light = (1 - strength / (1 + np.exp(-5 * across))) * (1 - 0.1 * (x**2 + y**2)) * view.gain
    balance = np.exp(np.array([-0.5, 0.0, 0.5]) * view.warmth)
    picture = cv2.GaussianBlur(picture, (0, 0), view.blur_px)
    exposed = np.clip(picture * light[..., None] * balance / 255, 0, 1) ** view.gamma * 255
    noise = rng.standard_normal((h, w, 1)) * view.noise + rng.standard_normal((h, w, 3)) * view.noise / 3
    developed: Array = np.clip(exposed + noise + 0.5, 0, 255).astype(np.uint8)
    return developed
