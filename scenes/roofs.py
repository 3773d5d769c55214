"""Roofs and gables: everything above the eaves, drawn before the wall."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.random import Generator

from cvnet_engine.engine.contract import Array
from scenes.facade import Facade
from scenes.materials import courses, pick, shade
from scenes.ornaments import rosette
from scenes.relief import Relief, by_name, ellipse, opening
from scenes.windows import window


def gable(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw one gable over the whole front, or a row of them."""
    count = 1 if f.bays < 5 else int(rng.integers(1, 4))
    step, y, high = f.width_m / count, f.eaves_m, f.roof_m if count == 1 else 0.8 * f.roof_m
    relief.rect(0.4, y - 0.2, f.width_m - 0.8, 0.6 * high, _tiles(relief, f, rng))
    for x in (np.arange(count) + 0.5) * step:
        relief.triangle(x, y, step / 2 + 0.3, high + 0.35, f.trim, 0.35)
        relief.triangle(x, y - 0.1, step / 2 - 0.3, high - 0.2, relief.wall)
        w, kind = 0.26 * step if count > 1 else 1.5, pick(rng, (f.top_window, "oculus", "round"))
        window(relief, f, rng, x, y + 0.16 * high, w, 0.4 * high, kind)


def stepped(relief: Relief, f: Facade, rng: Generator) -> None:
    steps, x, y = int(rng.integers(3, 7)), f.width_m / 2, f.eaves_m
    for i in range(steps):
        half, foot = x * (1 - i / steps), y + f.roof_m * i / steps
        relief.rect(x - half - 0.1, foot, 2 * half + 0.2, f.roof_m / steps + 0.2, f.trim, 0.2)
        relief.rect(x - half, foot - 0.3, 2 * half, f.roof_m / steps + 0.3, relief.wall)
    window(relief, f, rng, x, y + 0.12 * f.roof_m, 1.3, 0.42 * f.roof_m, f.top_window)


def scrolled(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw a curved gable, as in Amsterdam or Lisbon."""
    middle, y, t = f.width_m / 2, f.eaves_m, np.linspace(-1, 1, 81)
    neck, waist = rng.uniform(0.3, 0.5), rng.uniform(0.25, 0.5)
    side = np.clip((1 - abs(t)) / (1 - neck), 0, 1)
    crown = 0.72 + 0.28 * np.sqrt(np.clip(1 - (t / neck) ** 2, 0, 1))
    profile = np.where(abs(t) < neck, crown, waist * side**0.6 + (0.72 - waist) * side**5)
    for grow, paint, height in ((0.3, f.trim, 0.25), (0.0, relief.wall, 0.0)):
        outline = np.stack([middle + t * (middle + grow / 2), y + profile * f.roof_m + grow], 1)
        relief.fill(np.vstack([outline, [(f.width_m, y - 0.2), (0, y - 0.2)]]), paint, height)
    window(relief, f, rng, middle, y + 0.25 * f.roof_m, 1.2, 0.4 * f.roof_m, pick(rng, ("oculus", "round")))


def pediment(relief: Relief, f: Facade, rng: Generator) -> None:
    relief.rect(0.5, f.eaves_m, f.width_m - 1, 0.4 * f.roof_m, _tiles(relief, f, rng))
    x, half = f.width_m / 2, f.width_m / 2 * (1 if f.bays < 5 else 0.6)
    y, high = f.eaves_m + 0.2, f.roof_m * 0.85
    relief.triangle(x, y, half + 0.4, high, f.trim, 0.5)
    relief.triangle(x, y + 0.2, half - 0.6, high - 0.65, relief.wall, 0.05)
    rosette(relief, f, rng, x, y + 0.36 * high, 0.26 * high)
    for side in (-1, 1):
        relief.fill(ellipse(x + side * 0.42 * half, y + 0.2, 0.2 * half, 0.24 * high, 0, np.pi), f.trim, 0.2)


def balustrade(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw a flat roof behind a parapet with urns or blocks."""
    y, pitch = f.eaves_m + 0.2, rng.uniform(0.35, 0.6)
    relief.rect(0, y, f.width_m, 1.2, shade(f.wall, 0.55), -0.3)
    for x in np.arange(pitch / 2, f.width_m, pitch):
        relief.rect(x - pitch / 4, y, pitch / 2, 1.1, f.trim)
    relief.rect(-0.2, y + 1.0, f.width_m + 0.4, 0.22, f.trim, 0.3)
    for bay in range(f.bays + 1):
        x = bay * f.bay_m
        relief.rect(x - 0.28, y, 0.56, 1.3, f.trim, 0.25)
        if rng.random() < 0.75 and f.hood != "none":
            relief.fill(ellipse(x, y + 1.75, 0.3, 0.5), shade(f.trim, 0.95), 0.35)
    if rng.random() < 0.5:
        _chimneys(relief, f, rng, y + 1.2)


def mansard(relief: Relief, f: Facade, rng: Generator) -> None:
    y, w, high = f.eaves_m + 0.15, f.width_m, 0.8 * f.roof_m
    _chimneys(relief, f, rng, y + high - 0.3)
    relief.fill([(0, y), (w, y), (w - 0.7, y + high), (0.7, y + high)], _tiles(relief, f, rng), -0.3)
    relief.rect(0.5, y + high - 0.1, w - 1, 0.22, shade(f.tile, 0.7), 0.0)
    kind = pick(rng, ("flat", "round", "segmental", "oculus"))
    every = int(rng.integers(1, 3))
    for bay in range(0, f.bays, every):
        x = (bay + 0.5 * every) * f.bay_m
        if x < w - 0.8:
            relief.rect(x - 0.75, y, 1.5, 0.66 * high, f.trim, 0.2)
            relief.triangle(x, y + 0.66 * high, 0.95, 0.24 * high, f.trim, 0.35)
            window(relief, f, rng, x, y + 0.2, 0.95, 0.5 * high, kind)


def dome(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw a ribbed dome on a drum, behind a balustrade."""
    balustrade(relief, f, rng)
    x, y, radius = f.width_m / 2, f.eaves_m + 1.0, min(0.27 * f.width_m, 0.9 * f.roof_m)
    axis = np.array([x, 0.0])
    relief.rect(x - radius, y, 2 * radius, 1.3, f.trim, 0.1)
    for i in np.linspace(-0.8, 0.8, 6):
        relief.fill(opening("round", x + i * radius, y + 0.2, 0.2 * radius, 0.95), f.glass, -0.2)
    metal, rise = shade(f.accent if rng.random() < 0.5 else f.tile, 1.25), 0.8 * (f.roof_m + 0.8)
    ribs = np.linspace(-1, 1, 13)
    curve = ellipse(0, y + 1.3, radius, rise, 0, np.pi / 2)  # the rightmost rib, with the axis at x = 0
    for a, b in pairwise(ribs):  # lighter to the left
        slice_ = np.vstack([curve * [a, 1], curve[::-1] * [b, 1]])
        relief.fill(slice_ + axis, shade(metal, 1.0 - 0.25 * a), 0.3 * (1 - abs(a + b) / 2))
    for rib in ribs:
        relief.stroke(curve * [rib, 1] + axis, 0.07, shade(metal, 0.6), 0.3)
    relief.rect(x - 0.35, y + 1.2 + rise, 0.7, 0.9, f.trim, 0.2)
    relief.fill(ellipse(x, y + 2.1 + rise, 0.45, 0.5, 0, np.pi), metal, 0.3)


def towers(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw a tiled roof between one or two towers, with pointed or curved spires."""
    y = f.eaves_m
    relief.rect(0.4, y, f.width_m - 0.8, 0.5 * f.roof_m, _tiles(relief, f, rng), -0.4)
    bays = pick(rng, ((0,), (f.bays - 1,), (0, f.bays - 1), (f.bays // 2,)))
    pointed, tiles = rng.random() < 0.6, _tiles(relief, f, rng)
    w, top, peak = 0.98 * f.bay_m, y + 0.55 * f.roof_m + 1.2, f.height_m + 3.2
    foot, half = top + 0.25, w / 2 + 0.2
    curve = [(half, foot), (0, peak)] if pointed else ellipse(0, foot, half, 0.6 * (peak - foot), 0, np.pi / 2)
    spire = np.vstack([[(0, foot)], curve])  # (N, 2) the right half, with the axis at x = 0
    for x in map(f.middle_m, bays):
        relief.rect(x - w / 2, y - 0.2, w, top - y + 0.2, relief.wall, 0.15)
        window(relief, f, rng, x, y + 0.6, 0.45 * w, top - y - 1.1, f.window)
        relief.rect(x - w / 2 - 0.2, top, w + 0.4, 0.25, f.trim, 0.45)
        axis = np.array([x, 0.0])
        relief.fill(np.vstack([spire * [-1, 1], spire[::-1]]) + axis, tiles, 0.1)
        relief.fill(spire + axis, shade(f.tile, 0.7), 0.1)


def crenellated(relief: Relief, f: Facade, rng: Generator) -> None:
    y, tooth = f.eaves_m, rng.uniform(0.7, 1.2)
    relief.rect(0, y - 0.2, f.width_m, 1.1, relief.wall, 0.1)
    for x in np.arange(tooth / 2, f.width_m - tooth / 2, 2 * tooth):
        relief.rect(x, y + 0.5, tooth, 1.2, relief.wall, 0.1)
        relief.rect(x - 0.06, y + 1.7, tooth + 0.12, 0.14, f.trim, 0.2)
    for x in (f.middle_m(0), f.middle_m(f.bays - 1)):
        relief.rect(x - 0.42 * f.bay_m, y - 0.2, 0.84 * f.bay_m, f.roof_m, relief.wall, 0.25)
        for i in (-0.34, -0.07, 0.2):
            relief.rect(x + i * f.bay_m, y + f.roof_m - 0.3, 0.15 * f.bay_m, 0.7, relief.wall, 0.25)
        relief.fill(opening("pointed", x, y + 0.3, 0.5, 0.5 * f.roof_m), f.glass, -0.3)


def eaves(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw a shallow tiled roof with deep eaves."""
    y, w, high = f.eaves_m + 0.1, f.width_m, 0.45 * f.roof_m
    _chimneys(relief, f, rng, y + high - 0.2)
    relief.fill([(-0.8, y), (w + 0.8, y), (w - 1.5, y + high), (1.5, y + high)], _tiles(relief, f, rng), 0.5)
    for x in np.arange(-0.6, w + 0.6, 0.5):
        relief.rect(x, y - 0.22, 0.16, 0.24, shade(f.tile, 0.5), 0.5)


def fins(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw a set-back glazed storey under a slab."""
    y, high = f.eaves_m, 0.6 * f.roof_m
    relief.rect(0.8, y, f.width_m - 1.6, high, shade(f.glass, 1.3), -0.4)
    for x in np.arange(0.9, f.width_m - 0.8, rng.uniform(0.5, 1.3)):
        relief.rect(x, y, 0.12, high, f.trim, 0.1)
    relief.rect(0.2, y + high, f.width_m - 0.4, 0.35, f.trim, 0.5)
    relief.rect(-0.05, y - 0.1, f.width_m + 0.1, 0.35, f.trim, 0.25)


def _chimneys(relief: Relief, f: Facade, rng: Generator, y: float) -> None:
    for _ in range(int(rng.integers(1, 4))):
        x, w, h = rng.uniform(0.12, 0.88) * f.width_m, rng.uniform(0.6, 1.4), rng.uniform(0.9, 1.7)
        relief.rect(x - w / 2, y - 1.2, w, h + 1.2, shade(f.wall, 0.78), 0)
        relief.rect(x - w / 2 - 0.1, y + h - 0.2, w + 0.2, 0.2, shade(f.wall, 0.6), 0.1)
        for pot in np.arange(x - w / 2 + 0.25, x + w / 2, 0.4):
            relief.rect(pot - 0.1, y + h, 0.2, 0.35, shade(f.tile, 0.9), 0)


def _tiles(relief: Relief, f: Facade, rng: Generator) -> Array:
    return courses(rng, relief.cover.shape, f.tile, row_m=0.25, unit_m=0.3, vary=0.1, joint=0.7)


ROOFS = by_name(gable, stepped, scrolled, pediment, balustrade, mansard, dome, towers, crenellated, eaves, fins)
