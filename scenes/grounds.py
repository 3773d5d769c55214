"""Ground floors: doors, arcades, porticoes, shops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.random import Generator

from scenes.facade import Facade
from scenes.materials import courses, jitter, pick, shade
from scenes.ornaments import awning, lettering
from scenes.relief import Relief, by_name, opening
from scenes.windows import door, window


def plain(relief: Relief, f: Facade, rng: Generator) -> None:
    entrance = int(rng.integers(f.bays))
    relief.rect(-0.02, 0, f.width_m + 0.04, 0.7, shade(f.trim, 0.75), 0.1)
    for bay in range(f.bays):
        if bay == entrance:
            door(relief, f, f.middle_m(bay), 0.62 * f.bay_m, 0.72 * f.ground_m)
        else:
            window(relief, f, rng, f.middle_m(bay), 1.0, f.bay_m * f.fullness[0], 0.5 * f.ground_m, f.window)


def rusticated(relief: Relief, f: Facade, rng: Generator) -> None:
    blocks = courses(rng, relief.cover.shape, shade(f.trim, 0.88), row_m=0.5, unit_m=1.1, vary=0.05, joint=0.5)
    relief.rect(-0.08, 0, f.width_m + 0.16, f.ground_m - 0.2, blocks, 0.12)
    entrance, w, kind = int(rng.integers(f.bays)), 0.55 * f.bay_m, "round" if f.window == "pointed" else f.window
    for bay in range(f.bays):
        if bay == entrance:
            door(relief, f, f.middle_m(bay), w * 1.1, 0.78 * f.ground_m)
        else:
            window(relief, f, rng, f.middle_m(bay), 1.1, w, 0.5 * f.ground_m, kind)


def arcade(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw arches on piers or columns, dark behind."""
    kind = "pointed" if f.window == "pointed" else pick(rng, ("round", "segmental"))
    columns = rng.random() < 0.5
    for bay in range(f.bays):
        x, w, h = f.middle_m(bay), 0.8 * f.bay_m, 0.86 * f.ground_m
        relief.fill(opening(kind, x, 0, w + 0.4, h + 0.2), f.trim, 0.15)
        relief.fill(opening(kind, x, 0, w, h), shade(f.wall, 0.34), -0.6)
        relief.fill(opening("flat", x, 0, 0.5 * w, 0.55 * h), shade(f.glass, 0.8), -0.6)
    for bay in range(f.bays + 1) if columns else ():
        _column(relief, f, bay * f.bay_m, 0, 0.55 * f.ground_m, 0.26)


def portico(relief: Relief, f: Facade, rng: Generator) -> None:
    relief.rect(0, 0, f.width_m, f.ground_m - 0.2, shade(f.wall, 0.72), -0.2)
    for bay in range(f.bays):
        door(relief, f, f.middle_m(bay), 0.5 * f.bay_m, 0.66 * f.ground_m)
    for x in np.linspace(0.35, f.width_m - 0.35, 2 * f.bays - int(rng.integers(0, f.bays))):
        _column(relief, f, x, 0.3, f.ground_m - 0.75, 0.3)
    relief.rect(-0.1, f.ground_m - 0.5, f.width_m + 0.2, 0.4, f.trim, 0.5)
    relief.rect(-0.3, 0, f.width_m + 0.6, 0.18, f.trim, 0.8)
    relief.rect(-0.15, 0.18, f.width_m + 0.3, 0.16, shade(f.trim, 0.94), 0.6)


def portal(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw a church door with nested arches."""
    x, w, h = f.width_m / 2, min(0.42 * f.width_m, 4.6), 0.95 * f.ground_m
    kind = "pointed" if f.window == "pointed" else "round"
    for i in range(5):
        tone = 0.95 if i % 2 else 0.78
        relief.fill(opening(kind, x, 0, w * (1 - 0.11 * i), h * (1 - 0.07 * i)), shade(f.trim, tone), 0.3 - 0.14 * i)
    door(relief, f, x, w * 0.46, 0.56 * h)
    for side in (0.14, 0.86):
        window(relief, f, rng, side * f.width_m, 1.0, 0.11 * f.width_m, 0.6 * f.ground_m, kind)


def shop(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw shop fronts, each with its fascia, sign, and sometimes a striped awning."""
    edges = np.unique(np.concatenate([[0, f.bays], rng.integers(1, f.bays, 2)]))
    for first, last in pairwise(edges):
        x, w = first * f.bay_m + 0.15, (last - first) * f.bay_m - 0.3
        paint = jitter(rng, f.accent, 30)
        relief.rect(x, 0, w, f.ground_m - 0.4, paint, 0.12)
        panes = max(int(w / rng.uniform(1.2, 2.2)), 2)
        entrance = int(rng.integers(panes))
        for i in range(panes):
            foot = 0.1 if i == entrance else 0.7
            left, pane_w = x + 0.15 + i * (w - 0.2) / panes, (w - 0.2) / panes - 0.1
            relief.rect(left, foot, pane_w, f.ground_m - 1.2 - foot, shade(f.glass, rng.uniform(0.8, 1.5)), -0.1)
            for _ in range(0 if i == entrance else 5):  # goods in the window
                u, v, radius = left + rng.uniform(0.15, 0.85) * pane_w, rng.uniform(0.9, 1.7), rng.uniform(0.08, 0.2)
                relief.disc(u, v, radius, jitter(rng, (120, 140, 170), 60), -0.1)
        lettering(relief, rng, x + 0.2, f.ground_m - 1.05, w - 0.4, 0.5, shade(paint, 0.6), (225, 238, 240))
        if rng.random() < 0.45:
            awning(relief, x, f.ground_m - 1.1, w, jitter(rng, f.accent, 40))


def _column(relief: Relief, f: Facade, x: float, y: float, h: float, radius: float) -> None:
    for i in np.linspace(1, 0.15, 6):  # shading of a round column
        half, tone = radius * i, shade(f.trim, 0.9 + 0.12 * (1 - i))
        relief.rect(x - half, y, 2 * half, h, tone, 0.2 + 0.35 * np.sqrt(1 - i**2))
    relief.rect(x - 1.35 * radius, y + h, 2.7 * radius, 0.28, f.trim, 0.55)
    relief.rect(x - 1.35 * radius, y - 0.02, 2.7 * radius, 0.25, f.trim, 0.5)


GROUNDS = by_name(plain, rusticated, arcade, portico, portal, shop)
