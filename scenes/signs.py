"""Signs and lettering on the front."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from scenes.facade import Facade
from scenes.palette import Colour, colours, jitter, pick, shade
from scenes.relief import Relief, ellipse, opening


def sign(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw a name across the front, or down its side."""
    ink, ground = (228, 238, 240), shade(f.accent, 0.75)
    if rng.random() < 0.6:
        w = rng.uniform(0.45, 0.85) * f.width_m
        lettering(relief, rng, (f.width_m - w) / 2, f.ground_m - 0.1, w, 0.85, ground, ink)
    else:
        x, y = rng.uniform(0.05, 0.9) * f.width_m, f.ground_m + 0.5
        h = min(0.7 * (f.eaves_m - y), 6.0)
        relief.rect(x, y, 0.9, h, ground, 0.6)
        for v in np.arange(y + 0.2, y + h - 0.5, 0.75):
            _letter(relief, rng, x + 0.25, v, 0.4, 0.5, ink, 0.62)


def lettering(
    relief: Relief, rng: Generator, x: float, y: float, w: float, h: float, ground: Colour, ink: Colour
) -> None:
    relief.rect(x, y, w, h, ground, 0.25)
    size = 0.6 * h
    count = max(min(int(w / size) - 1, int(rng.integers(4, 12))), 2)
    start = x + (w - count * size) / 2
    for i in range(count):
        if rng.random() < 0.88:
            _letter(relief, rng, start + i * size, y + 0.2 * h, 0.7 * size, size, ink, 0.27)


def _letter(
    relief: Relief, rng: Generator, x: float, y: float, w: float, h: float, ink: Colour, height_m: float
) -> None:
    """Draw an invented letter: strokes between the corners of a box."""
    nodes = np.array([(0, 0), (1, 0), (0, 0.5), (1, 0.5), (0, 1), (1, 1), (0.5, 1), (0.5, 0)]) * (w, h) + (x, y)
    path = nodes[rng.choice(len(nodes), 4, replace=False)]
    relief.stroke(path, 0.2 * w, ink, height_m)


def graffiti(relief: Relief, f: Facade, rng: Generator) -> None:
    for _ in range(int(rng.integers(2, 5))):
        x, y = rng.uniform(0.1, 0.7) * f.width_m, rng.uniform(0.5, 1.6)
        t = np.linspace(0, 1, 26)
        swing = sum(rng.normal(0, 0.7) / k * np.sin(2 * np.pi * k * t + rng.uniform(0, 6)) for k in range(1, 5))
        path = np.stack([x + rng.uniform(1.5, 3.5) * t, np.clip(y + swing, 0.2, f.ground_m - 0.4)], 1)
        hue = jitter(rng, pick(rng, colours("e0417a 3aa0d8 f0d040 50c060 f08030 8050d0")), 14)
        relief.stroke(path, 0.3, (30, 28, 32), 0.0)
        relief.stroke(path, 0.18, hue, 0.0)


def mural(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw a painted wall of shapes in a few colours, in the bay without windows."""
    bay = f.blank_bay or 0
    x, y, w = bay * f.bay_m + 0.15, f.ground_m + 0.2, f.bay_m - 0.3
    h = f.eaves_m - y - 0.4
    frame = opening("flat", x + w / 2, y, w, h)
    hues = [jitter(rng, f.accent, 55) for _ in range(3)] + [jitter(rng, (200, 215, 225), 25)]
    relief.fill(frame, hues[3], 0.0)
    for _ in range(16):
        u, v, size = x + rng.uniform(0, w), y + rng.uniform(0, h), rng.uniform(0.2, 0.5) * w
        corners = int(pick(rng, (3, 4, 5, 24)))
        turn = rng.uniform(0, 6)
        relief.fill(
            ellipse(u, v, size, size * rng.uniform(0.6, 1.6), turn, turn + 2 * np.pi, corners + 1),
            pick(rng, tuple(hues)),
            0.0,
            clip=frame,
        )
