"""Ornament in stone and glass."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from scenes.facade import Facade
from scenes.palette import jitter, pick, shade
from scenes.relief import Relief, opening


def quoins(relief: Relief, f: Facade, rng: Generator) -> None:
    high = rng.uniform(0.4, 0.6)
    for i, y in enumerate(np.arange(f.ground_m, f.eaves_m - high, high)):
        w = 0.75 if i % 2 else 0.45
        for x in (-0.04, f.width_m - w + 0.04):
            relief.rect(x, y + 0.03, w, high - 0.06, f.trim, 0.1)


def frieze(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw a carved band under the cornice, with one repeated motif."""
    y, h = f.eaves_m - 0.95, 0.6
    relief.rect(0, y, f.width_m, h, shade(f.trim, 0.92), 0.06)
    motif, step, ink = int(rng.integers(4)), rng.uniform(0.6, 1.2), pick(rng, (f.accent, shade(f.trim, 0.7), f.wall))
    for x in np.arange(step / 2, f.width_m, step):
        if motif == 0:
            relief.disc(x, y + h / 2, 0.24, ink, 0.16)
            relief.disc(x, y + h / 2, 0.1, f.trim, 0.22)
        elif motif == 1:
            relief.fill([(x - 0.3, y + 0.05), (x + 0.3, y + 0.05), (x, y + h - 0.05)], ink, 0.16)
        elif motif == 2:
            for k in (-0.16, 0, 0.16):
                relief.rect(x + k - 0.05, y + 0.05, 0.1, h - 0.1, ink, 0.16)
        else:
            relief.fill([(x - 0.28, y + h / 2), (x, y + 0.04), (x + 0.28, y + h / 2), (x, y + h - 0.04)], ink, 0.16)


def medallion(relief: Relief, f: Facade, rng: Generator, x: float, y: float, radius: float) -> None:
    """Draw a round relief of rings and petals."""
    relief.disc(x, y, radius, f.trim, 0.3)
    relief.disc(x, y, 0.82 * radius, shade(pick(rng, (f.trim, f.accent)), 0.85), 0.1)
    petals, long, centre = int(rng.integers(4, 13)), rng.uniform(0.5, 0.78), np.array([x, y])
    for angle in np.linspace(0, 2 * np.pi, petals, endpoint=False):
        tip = np.array([np.cos(angle), np.sin(angle)]) * radius * long
        side = np.array([-tip[1], tip[0]]) * rng.uniform(0.2, 0.3)
        relief.fill(np.array([0 * tip, tip * 0.6 + side, tip, tip * 0.6 - side]) + centre, f.trim, 0.26)
    relief.disc(x, y, 0.2 * radius, shade(f.trim, 0.9), 0.35)


def medallions(relief: Relief, f: Facade, rng: Generator) -> None:
    bay = f.blank_bay or 0
    for floor in range(f.floors):
        y = f.storey_m(floor + 0.5)
        medallion(relief, f, rng, f.middle_m(bay), y, min(0.36 * f.bay_m, 0.36 * f.floor_m))


def niches(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw statues in niches, in the bay without windows."""
    bay = f.blank_bay or 0
    for floor in range(f.floors):
        x, y = f.middle_m(bay), f.storey_m(floor) + 0.6
        h = 0.72 * f.floor_m
        relief.fill(opening("round", x, y - 0.1, 1.5, h + 0.3), f.trim, 0.12)
        relief.fill(opening("round", x, y, 1.1, h), shade(f.wall, 0.55), -0.4)
        stone = shade(f.trim, 0.97)
        relief.rect(x - 0.35, y, 0.7, 0.25, stone, 0.1)
        lean = rng.uniform(-0.12, 0.12)
        relief.fill(
            [(x - 0.3, y + 0.2), (x + 0.3, y + 0.2), (x + 0.18 + lean, y + 0.66 * h), (x - 0.18 + lean, y + 0.66 * h)],
            stone,
            0.1,
        )
        relief.disc(x + lean, y + 0.76 * h, 0.15, stone, 0.15)
        arm = pick(rng, (-1, 1))
        relief.stroke(
            [(x + lean, y + 0.6 * h), (x + lean + arm * 0.38, y + rng.uniform(0.4, 0.8) * h)], 0.13, stone, 0.15
        )


def rose(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw a rose window over the middle of the front."""
    x, radius = f.width_m / 2, min(0.2 * f.width_m, 0.6 * f.floor_m, 2.4)
    y, spokes = f.eaves_m - radius - 0.7, int(rng.integers(6, 15))
    relief.disc(x, y, radius + 0.35, f.trim, 0.25)
    relief.disc(x, y, radius, f.glass, -0.3)
    hues = [jitter(rng, f.accent, 45) for _ in range(spokes)]
    for i, angle in enumerate(np.linspace(0, 2 * np.pi, spokes, endpoint=False)):
        reach = np.array([np.cos(angle), np.sin(angle)])
        centre = reach * 0.7 * radius + (x, y)
        relief.disc(centre[0], centre[1], 0.22 * radius, shade(hues[i], 1.2), -0.3)
        relief.stroke(np.array([(x, y), reach * radius + (x, y)]), 0.1, f.trim, 0.0)
    relief.disc(x, y, 0.3 * radius, f.trim, 0.0)
    relief.disc(x, y, 0.2 * radius, shade(f.accent, 1.3), -0.2)


def clock(relief: Relief, f: Facade, rng: Generator) -> None:
    x, y, radius = f.width_m / 2, f.eaves_m - 1.3, rng.uniform(0.8, 1.1)
    relief.disc(x, y, radius + 0.2, f.accent, 0.35)
    relief.disc(x, y, radius, (225, 236, 240), 0.3)
    for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        mark = np.array([np.cos(angle), np.sin(angle)]) * radius
        relief.stroke(np.array([mark * 0.78, mark * 0.94]) + np.array([x, y]), 0.09, (40, 40, 45), 0.3)
    for long in (0.55, 0.8):
        angle = rng.uniform(0, 2 * np.pi)
        relief.stroke(
            [(x, y), (x + long * radius * np.cos(angle), y + long * radius * np.sin(angle))], 0.1, (30, 30, 35), 0.32
        )
