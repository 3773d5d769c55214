"""Windows and doors, with surround and hood; (x, y) is the middle of the foot."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from scenes.facade import Facade
from scenes.materials import shade
from scenes.relief import Relief, ellipse, opening


def window(relief: Relief, facade: Facade, rng: Generator, x: float, y: float, w: float, h: float, kind: str) -> None:
    """Draw a window with surround, hood, sill, glass, curtain and glazing bars."""
    trim = facade.trim
    if facade.hood != "none" or facade.material in ("rubble", "brick"):
        relief.fill(opening(kind, x, y - 0.08, w + 0.32, h + 0.24), trim, 0.08)
    _hood(relief, facade, x, y + h + 0.14, w / 2 + 0.3, kind)
    relief.fill(opening(kind, x, y, w, h), shade(trim, 0.9), -0.18)
    pane = opening(kind, x, y + 0.06, w - 0.14, h - 0.12)
    relief.fill(pane, facade.glass, -0.28)
    sky = np.array([(x - w, y + h * rng.uniform(0.2, 0.8)), (x + w, y + h * rng.uniform(0.4, 1.0)), (x, y + 2 * h)])
    relief.fill(sky, shade(facade.glass, rng.uniform(1.3, 1.9)), -0.28, clip=pane)
    if rng.random() < 0.4:
        drop = h * rng.uniform(0.2, 0.75)
        relief.rect(x - w, y + h - drop, 2 * w, drop, shade(trim, rng.uniform(0.7, 0.95)), -0.27, pane)
    columns, rows = facade.panes
    bar = trim if sum(trim) > 330 else shade(trim, 0.9)
    for column in range(1, columns):
        relief.rect(x - w / 2 + w * column / columns - 0.03, y, 0.06, h, bar, -0.22, pane)
    for row in range(1, rows):
        relief.rect(x - w, y + h * row / rows - 0.03, 2 * w, 0.06, bar, -0.22, pane)
    if kind != "oculus":
        relief.rect(x - w / 2 - 0.2, y - 0.16, w + 0.4, 0.16, trim, 0.16)


def _hood(relief: Relief, facade: Facade, x: float, y: float, half: float, kind: str) -> None:
    trim = facade.trim
    if facade.hood == "keystone" and kind != "oculus":
        stone = [(x - 0.14, y - 0.3), (x + 0.14, y - 0.3), (x + 0.22, y + 0.2), (x - 0.22, y + 0.2)]
        relief.fill(stone, shade(trim, 1.05), 0.2)
    if kind in ("oculus", "pointed") or facade.hood in ("none", "keystone"):
        return
    relief.rect(x - half, y, 2 * half, 0.16, trim, 0.25)
    if facade.hood == "pediment":
        relief.triangle(x, y + 0.16, half, 0.46, trim, 0.25)
        relief.triangle(x, y + 0.2, half - 0.35, 0.26, shade(trim, 0.88), 0.1)
    if facade.hood == "arched":
        relief.fill(ellipse(x, y + 0.14, half, 0.5, 0, np.pi), trim, 0.25)
        relief.fill(ellipse(x, y + 0.16, half - 0.25, 0.28, 0, np.pi), shade(trim, 0.85), 0.1)


def door(relief: Relief, f: Facade, x: float, w: float, h: float) -> None:
    """Draw a panelled double door with a fanlight and a step."""
    kind = "flat" if f.window == "oculus" else f.window
    leaves = opening(kind, x, 0.1, w, h)
    relief.fill(opening(kind, x, 0, w + 0.5, h + 0.3), f.trim, 0.15)
    relief.fill(leaves, shade(f.accent, 0.5), -0.35)
    for left in (x - w / 2 + 0.1, x + 0.03):
        for low, high in ((0.06, 0.3), (0.34, 0.66)):
            relief.rect(left, 0.1 + low * h, w / 2 - 0.13, (high - low) * h, f.accent, -0.28)
    relief.fill(opening("flat", x, 0.1 + 0.7 * h, w - 0.2, 0.2 * h), f.glass, -0.4, clip=leaves)
    relief.rect(x - w / 2 - 0.4, 0, w + 0.8, 0.14, shade(f.trim, 0.9), 0.5)
