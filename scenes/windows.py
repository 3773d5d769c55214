"""Windows, with surround and hood."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from scenes.facade import Facade
from scenes.palette import shade
from scenes.relief import Relief, ellipse, opening


def window(relief: Relief, facade: Facade, rng: Generator, x: float, y: float, w: float, h: float, kind: str) -> None:
    """Draw a window with surround, hood, sill, glass, curtain and glazing bars; (x, y) is the middle of its foot."""
    if facade.hood != "none" or facade.material in ("rubble", "brick"):
        relief.fill(opening(kind, x, y - 0.08, w + 0.32, h + 0.24), facade.trim, 0.08)
    _hood(relief, facade, x, y, w, h, kind)
    hole = opening(kind, x, y, w, h)
    relief.fill(hole, shade(facade.trim, 0.9), -0.18)
    pane = opening(kind, x, y + 0.06, w - 0.14, h - 0.12)
    relief.fill(pane, facade.glass, -0.28)
    sky = np.array([(x - w, y + h * rng.uniform(0.2, 0.8)), (x + w, y + h * rng.uniform(0.4, 1.0)), (x, y + 2 * h)])
    relief.fill(sky, shade(facade.glass, rng.uniform(1.3, 1.9)), -0.28, clip=pane)
    if rng.random() < 0.4:
        drop = h * rng.uniform(0.2, 0.75)
        blind = np.array([(x - w, y + h - drop), (x + w, y + h - drop), (x + w, y + h), (x - w, y + h)])
        relief.fill(blind, shade(facade.trim, rng.uniform(0.7, 0.95)), -0.27, clip=pane)
    columns, rows = facade.panes
    bar = facade.trim if sum(facade.trim) > 330 else shade(facade.trim, 0.9)
    for c in range(1, columns):
        u = x - w / 2 + w * c / columns
        relief.fill([(u - 0.03, y), (u + 0.03, y), (u + 0.03, y + h), (u - 0.03, y + h)], bar, -0.22, pane)
    for r in range(1, rows):
        v = y + h * r / rows
        relief.fill([(x - w, v - 0.03), (x + w, v - 0.03), (x + w, v + 0.03), (x - w, v + 0.03)], bar, -0.22, pane)
    if kind != "oculus":
        relief.rect(x - w / 2 - 0.2, y - 0.16, w + 0.4, 0.16, facade.trim, 0.16)


def _hood(relief: Relief, facade: Facade, x: float, y: float, w: float, h: float, kind: str) -> None:
    top, half = y + h + 0.14, w / 2 + 0.3
    if facade.hood == "keystone" and kind != "oculus":
        relief.fill(
            [(x - 0.14, top - 0.3), (x + 0.14, top - 0.3), (x + 0.22, top + 0.2), (x - 0.22, top + 0.2)],
            shade(facade.trim, 1.05),
            0.2,
        )
    if kind in ("oculus", "pointed") or facade.hood in ("none", "keystone"):
        return
    relief.rect(x - half, top, 2 * half, 0.16, facade.trim, 0.25)
    if facade.hood == "pediment":
        relief.fill([(x - half, top + 0.16), (x + half, top + 0.16), (x, top + 0.62)], facade.trim, 0.25)
        relief.fill(
            [(x - half + 0.35, top + 0.2), (x + half - 0.35, top + 0.2), (x, top + 0.46)], shade(facade.trim, 0.88), 0.1
        )
    if facade.hood == "arched":
        relief.fill(ellipse(x, top + 0.14, half, 0.5, 0, np.pi), facade.trim, 0.25)
        relief.fill(ellipse(x, top + 0.16, half - 0.25, 0.28, 0, np.pi), shade(facade.trim, 0.85), 0.1)
