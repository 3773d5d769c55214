"""View of a scene: camera position, framing, light, lens and occluders of one photograph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from cvnet_engine.engine.contract import Array
from scenes.facade import Facade
from scenes.materials import pick
from scenes.occluders import Occluder, choose_occluders
from scenes.projection import project
from scenes.scene import build_scene
from scenes.surroundings import SKIES

EYE_M = 1.7
FIRST_VIEWS_MILD = 2  # the query, and one view that certainly matches it


@dataclass(frozen=True)
class View:
    """Camera position, framing, light, lens and occluders of one photograph."""

    size: tuple[int, int]  # (height, width) px
    yaw_deg: float  # 0 faces the façade, positive is from its right
    distance: float  # in façade diagonals
    eye_m: float
    fill: float  # fraction of the frame that the façade spans; above 1 crops it
    aim: tuple[float, float]  # point of the façade at the image centre, as fractions of width and height
    roll_deg: float
    sun_deg: float  # direction the light comes from, on the façade; 0 is from above
    sunlight: float  # 0 overcast, 1 bright sun
    gain: float
    gamma: float
    warmth: float  # log of red over blue
    shade: tuple[float, float]  # soft shadow across the image: strength, direction in degrees
    sky: str
    blur_px: float
    noise: float
    occluders: tuple[Occluder, ...]
    seed: tuple[int, ...]

    def camera(self, facade: Facade, size: tuple[int, int]) -> Array:
        """Return the projection (3, 4) from world metres to pixels, with the focal length that gives `fill`."""
        yaw, away = np.radians(self.yaw_deg), self.distance * np.hypot(facade.width_m, facade.height_m)
        middle = np.array([facade.width_m / 2, 0.0, 0.0])
        eye = middle + np.array([away * np.sin(yaw), self.eye_m, away * np.cos(yaw)])
        aim = np.array([self.aim[0] * facade.width_m, self.aim[1] * facade.height_m, 0.0])
        forward = (aim - eye) / np.linalg.norm(aim - eye)
        right = np.cross(forward, [0, 1, 0]) / np.linalg.norm(np.cross(forward, [0, 1, 0]))
        roll = np.radians(self.roll_deg)
        down = np.cross(forward, right)
        rotation = np.stack(
            [np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right, forward]
        )
        extrinsic = np.hstack([rotation, -rotation @ eye[:, None]])
        x, y = project(extrinsic, facade.corners)
        focal = self.fill * min(size[1] / np.ptp(x), size[0] / np.ptp(y))
        camera: Array = np.array([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1]]) @ extrinsic
        return camera


def choose_view(seed: int, index: int, number: int, size: tuple[int, int]) -> View:
    """Choose view `number` of a scene. The first ones are mild; later ones may be far, close, oblique or obstructed."""
    rng = np.random.default_rng((seed, index, number + 1000))
    mild = number < FIRST_VIEWS_MILD
    barely = not mild and rng.random() < 0.08
    effort = rng.uniform(0.0, 0.3) if mild else rng.uniform(0.2, 1.0)  # departure from an ideal photo
    return _view(rng, build_scene(seed, index).main, size, effort, barely)


def _view(rng: Generator, facade: Facade, size: tuple[int, int], effort: float, barely: bool) -> View:
    """Choose a photograph that departs more from a frontal, clear, well-lit one the higher `effort` (0 to 1) is."""
    height, width = size
    tall = facade.height_m > 0.95 * facade.width_m
    portrait = rng.random() < (0.6 if tall else 0.15)
    close = rng.random() < 0.35
    fill = rng.uniform(0.8, 1.0) * (1 + 1.3 * effort**1.5 if close else 1 - 0.62 * effort)
    reach = 0.12 + 0.5 * max(fill - 1, 0)  # largest offset of the aim from the centre
    if barely:
        fill, reach = (rng.uniform(0.06, 0.12), 0.2) if close else (rng.uniform(3.5, 5.0), 0.5)
    return View(
        size=(width, height) if portrait else size,
        yaw_deg=float(rng.choice([-1, 1]) * rng.uniform(12 * effort, 12 + 50 * effort)),
        distance=rng.uniform(1.15, 2.0) - 0.35 * effort,
        eye_m=EYE_M + (rng.uniform(0, 9) if rng.random() < 0.3 * effort else 0),
        fill=fill,
        aim=(0.5 + reach * rng.uniform(-1, 1), 0.5 + reach * rng.uniform(-0.8, 0.6)),
        roll_deg=rng.normal(0, 0.6 + 3.0 * effort),
        sun_deg=rng.uniform(-60, 60),
        sunlight=float(np.clip(rng.uniform(-0.2, 1.1), 0, 1)),
        gain=float(np.exp(rng.normal(0.06, 0.05 + 0.24 * effort))),
        gamma=float(np.exp(rng.normal(0, 0.05 + 0.16 * effort))),
        warmth=rng.normal(0, 0.04 + 0.14 * effort),
        shade=(rng.uniform(0, 0.1 + 0.5 * effort), rng.uniform(0, 360)),
        sky=pick(rng, tuple(SKIES)),
        blur_px=rng.uniform(0.2, 0.45 + 0.8 * effort),
        noise=rng.uniform(1.0, 2.5 + 5.0 * effort),
        occluders=choose_occluders(rng, facade, effort),
        seed=tuple(int(s) for s in rng.integers(0, 2**31, 2)),
    )
