"""Patterns in or on the whole wall, drawn under the windows."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from scenes.facade import Facade
from scenes.materials import azulejo
from scenes.palette import pick, shade
from scenes.relief import Relief, opening


def diaper(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw a lattice of another colour into the wall."""
    step, ink = rng.uniform(1.0, 2.2), shade(f.wall, pick(rng, (0.6, 1.3)))
    box = opening("flat", f.width_m / 2, f.ground_m, f.width_m, f.eaves_m - f.ground_m)
    for slope in (-1, 1):
        for x in np.arange(-f.eaves_m, f.width_m + f.eaves_m, step):
            a, b, side = np.array([x, 0.0]), np.array([x + slope * f.eaves_m, f.eaves_m]), np.array([0.1, 0.0])
            relief.fill([a - side, a + side, b + side, b - side], ink, 0.0, clip=box)


def timber(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw posts, rails and braces; each building has its own pattern of braces."""
    braces = [pick(rng, ("/", "\\", "x", "v", "none", "|")) for _ in range(3)]
    for floor in range(f.floors):
        y = f.storey_m(floor)
        for rail in (0, 0.26 * f.floor_m, f.floor_m - 0.25):
            relief.rect(0, y + rail, f.width_m, 0.24, f.trim, 0.06)
        for post in range(f.bays + 1):
            x = min(max(post * f.bay_m - 0.13, 0), f.width_m - 0.26)
            relief.rect(x, y, 0.26, f.floor_m, f.trim, 0.06)
        for bay in range(f.bays):
            _brace(relief, f, braces[(bay + floor) % 3], bay * f.bay_m, y, f.bay_m, 0.26 * f.floor_m)


def _brace(relief: Relief, f: Facade, kind: str, x: float, y: float, w: float, h: float) -> None:
    up, down = np.array([(x, y), (x + w, y + h)]), np.array([(x, y + h), (x + w, y)])
    lines = {
        "/": [up], "\\": [down], "x": [up, down], "none": [],
        "v": [np.array([(x, y + h), (x + w / 2, y), (x + w, y + h)])],
        "|": [np.array([(x + k * w, y), (x + k * w, y + h)]) for k in (0.25, 0.5, 0.75)],
    }[kind]  # fmt: skip
    for line in lines:
        relief.stroke(line, 0.18, f.trim, 0.05)


def bands(relief: Relief, f: Facade, rng: Generator) -> None:
    step, ink = rng.uniform(0.7, 1.8), pick(rng, (f.trim, shade(f.wall, 0.65), f.accent))
    for y in np.arange(f.ground_m, f.eaves_m, step):
        relief.rect(0, y, f.width_m, rng.uniform(0.14, 0.3), ink, 0.03)


def pilasters(relief: Relief, f: Facade, rng: Generator) -> None:
    w = rng.uniform(0.35, 0.6)
    for bay in range(f.bays + 1):
        x = min(max(bay * f.bay_m, w / 2), f.width_m - w / 2)
        relief.rect(x - w / 2, f.ground_m, w, f.eaves_m - f.ground_m, f.trim, 0.2)
        relief.rect(x - w / 8, f.ground_m + 0.5, w / 4, f.eaves_m - f.ground_m - 1.2, shade(f.trim, 0.86), 0.12)
        for y in (f.ground_m, f.eaves_m - 0.6):
            relief.rect(x - 0.65 * w, y, 1.3 * w, 0.35, f.trim, 0.3)


def tilework(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw bands of painted tiles between the floors."""
    tiles = azulejo(rng, relief.cover.shape, f.accent)
    for floor in range(f.floors):
        relief.rect(0.1, f.storey_m(floor) + 0.05, f.width_m - 0.2, 0.2 * f.floor_m, tiles, 0.02)


def fins(relief: Relief, f: Facade, rng: Generator) -> None:
    step = f.bay_m / int(rng.integers(2, 5))
    ink = pick(rng, (f.trim, f.accent, shade(f.wall, 0.7)))
    for x in np.arange(0, f.width_m + 0.01, step):
        relief.rect(x - 0.09, f.ground_m, 0.18, f.eaves_m - f.ground_m, ink, 0.4)
