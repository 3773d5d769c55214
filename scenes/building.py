"""Whole buildings on their canvases: the front, and the bare flank of a free-standing building."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.random import Generator

from cvnet_engine.engine.contract import Array
from scenes.facade import Facade
from scenes.grounds import GROUNDS
from scenes.materials import MATERIALS, shade, smooth_noise
from scenes.ornaments import OVER_WINDOWS, UNDER_WINDOWS
from scenes.relief import Part, Relief
from scenes.roofs import ROOFS
from scenes.windows import window


@lru_cache(maxsize=6)
def draw_front(facade: Facade) -> Relief:
    """Draw a building's front."""
    rng = np.random.default_rng(facade.seed)
    relief = Relief(facade.width_m, facade.height_m + 3.5)
    relief.wall = MATERIALS[facade.material](rng, relief.cover.shape, facade.wall)
    ROOFS[facade.roof](relief, facade, rng)
    relief.rect(0, 0, facade.width_m, facade.eaves_m, relief.wall)
    _adorn(relief, facade, rng, UNDER_WINDOWS)
    for floor in range(facade.floors):
        _storey(relief, facade, rng, floor)
    _cornice(relief, facade, rng)
    GROUNDS[facade.ground](relief, facade, rng)
    _adorn(relief, facade, rng, OVER_WINDOWS)
    _weather(relief, rng)
    return relief


def _adorn(relief: Relief, facade: Facade, rng: Generator, ornaments: dict[str, Part]) -> None:
    for name, draw in ornaments.items():
        if name in facade.ornaments:
            draw(relief, facade, rng)


def _storey(relief: Relief, facade: Facade, rng: Generator, floor: int) -> None:
    top = floor == facade.floors - 1 and facade.floors > 1
    kind = facade.top_window if top else facade.window
    w, h = facade.bay_m * facade.fullness[0], facade.floor_m * facade.fullness[1] * (0.85 if top else 1.0)
    for bay in range(facade.bays):
        if bay != facade.blank_bay:
            window(relief, facade, rng, facade.middle_m(bay), facade.storey_m(floor + 0.28), w, h, kind)


def _cornice(relief: Relief, facade: Facade, rng: Generator) -> None:
    """Draw the ledges over the ground floor and under the roof, the upper one sometimes with dentils."""
    width, y = facade.width_m, facade.eaves_m
    if facade.roof in ("gable", "stepped", "scrolled", "fins") and rng.random() < 0.6:
        return
    relief.rect(-0.1, facade.ground_m - 0.2, width + 0.2, 0.26, facade.trim, 0.22)
    relief.rect(-0.2, y - 0.12, width + 0.4, 0.22, facade.trim, 0.42)
    relief.rect(-0.35, y + 0.1, width + 0.7, 0.18, shade(facade.trim, 1.04), 0.6)
    if rng.random() < 0.7:
        pitch = rng.uniform(0.35, 0.8)
        for x in np.arange(pitch / 2, width, pitch):
            relief.rect(x - pitch / 5, y - 0.38, pitch / 2.5, 0.26, facade.trim, 0.3)


def _weather(relief: Relief, rng: Generator) -> None:
    """Add dirt under ledges and damp at the foot, so that large flat parts have some texture."""
    drip = cv2.blur(relief.height, (3, 61), anchor=(1, 60)) - relief.height
    dirt = 1 - 0.22 * np.clip(drip, 0, 1) * (0.6 + 0.4 * smooth_noise(rng, relief.cover.shape, 16, 2))
    foot = np.linspace(0, 1, len(dirt))[:, None] ** 12
    light = (dirt - 0.16 * foot)[..., None].astype(np.float32)
    relief.colour[:] = np.clip(relief.colour * light, 0, 255)


@lru_cache(maxsize=6)
def draw_flank(facade: Facade, depth_m: float) -> Array:
    """Draw a flank with a few windows, unlit, (H, W, 4)."""
    rng = np.random.default_rng((*facade.seed, 9))
    relief = Relief(depth_m, facade.eaves_m, margin_m=0.0)
    relief.rect(0, 0, depth_m, facade.eaves_m, MATERIALS[facade.material](rng, relief.cover.shape, facade.wall))
    for floor in range(facade.floors):
        for x in np.arange(1.8, depth_m - 1.0, 3.4):
            if rng.random() < 0.6:
                y = facade.storey_m(floor + 0.28)
                window(relief, facade, rng, x, y, 1.0, 0.5 * facade.floor_m, "flat")
    return relief.picture()
