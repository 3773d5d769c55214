"""Fittings of a front: shutters, balconies, awnings, laundry, flags, pipes, ivy."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from scenes.facade import Facade
from scenes.palette import Colour, colours, jitter, pick, shade
from scenes.relief import Relief, ellipse


def shutters(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw louvred shutters beside the windows, a few of them closed."""
    blank = f.blank_bay
    w, h = f.bay_m * f.fullness[0], f.floor_m * f.fullness[1]
    leaf = min(w / 2, (f.bay_m - w) / 2 - 0.06)
    for floor in range(f.floors - (f.floors > 1 and f.top_window == "oculus")):
        for bay in range(f.bays):
            if bay == blank:
                continue
            x, y = f.middle_m(bay), f.storey_m(floor + 0.28)
            closed = rng.random() < 0.12
            for side in (-1, 1):
                left = x + (side - 1) * w / 4 if closed else x + side * (w / 2 + leaf / 2 + 0.02) - leaf / 2
                width = w / 2 if closed else leaf
                relief.rect(left, y, width, h * 0.88, shade(f.accent, 0.8), 0.1)
                for v in np.arange(y + 0.1, y + h * 0.88 - 0.1, 0.16):
                    relief.rect(left + 0.07, v, width - 0.14, 0.09, shade(f.accent, 1.2), 0.13)


def balconies(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw slabs with railings, under every window of some floors or along the whole floor."""
    iron = pick(rng, ((45, 45, 48), f.trim, f.accent))
    whole = rng.random() < 0.4
    for floor in range(f.floors):
        if rng.random() < 0.35 and floor:
            continue
        y = f.storey_m(floor + 0.2)
        spans = [(0.2, f.width_m - 0.4)] if whole else [((b + 0.12) * f.bay_m, 0.76 * f.bay_m) for b in range(f.bays)]
        for x, w in spans:
            relief.rect(x, y - 0.18, w, 0.2, f.trim, 0.8)
            for u in np.arange(x + 0.05, x + w, 0.19):
                relief.rect(u, y, 0.06, 0.95, iron, 0.75)
            relief.rect(x, y + 0.92, w, 0.09, iron, 0.8)


def boxes(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw flowers under the windows."""
    bloom = pick(rng, colours("c8324a d9577a e0b23a b04fa0 e06a3a"))
    for floor in range(f.floors):
        for bay in range(f.bays):
            if rng.random() < 0.35:
                continue
            x, y, w = f.middle_m(bay), f.storey_m(floor + 0.28), f.bay_m * f.fullness[0]
            relief.rect(x - w / 2, y - 0.22, w, 0.24, (52, 72, 98), 0.35)
            for _ in range(int(24 * w)):
                u, v = x + rng.uniform(-0.55, 0.55) * w, y + rng.normal(0.08, 0.1)
                relief.disc(
                    u, v, rng.uniform(0.05, 0.11), bloom if rng.random() < 0.4 else jitter(rng, (50, 110, 60), 14), 0.4
                )


def awnings(relief: Relief, f: Facade, rng: Generator) -> None:
    w = f.bay_m * f.fullness[0] + 0.5
    for floor in range(f.floors):
        for bay in range(f.bays):
            if rng.random() < 0.5:
                y = f.storey_m(floor + 0.28 + f.fullness[1] * 0.75)
                awning(relief, f.middle_m(bay) - w / 2, y, w, f.accent)


def awning(relief: Relief, x: float, y: float, w: float, colour: Colour) -> None:
    stripes = max(int(w / 0.35), 3)
    for i in range(stripes):
        a, b = x + w * i / stripes, x + w * (i + 1) / stripes
        ink = colour if i % 2 else (224, 232, 236)
        relief.fill([(a - 0.08, y - 0.75), (b - 0.08, y - 0.75), (b, y), (a, y)], ink, 0.9)
        relief.fill(
            ellipse((a + b) / 2 - 0.08, y - 0.75, (b - a) / 2, 0.14, np.pi, 2 * np.pi, 8), shade(ink, 0.85), 0.95
        )


def laundry(relief: Relief, f: Facade, rng: Generator) -> None:
    for floor in range(f.floors):
        y, x = f.storey_m(floor + 0.2), rng.uniform(0, 0.5) * f.width_m
        end = x + rng.uniform(0.25, 0.5) * f.width_m
        relief.rect(x, y, end - x, 0.04, (60, 60, 60), 0.3)
        while x < end - 0.8:
            w, h = rng.uniform(0.35, 0.8), rng.uniform(0.4, 1.0)
            relief.rect(x, y - h, w, h, jitter(rng, (190, 180, 185), 45), 0.3)
            x += w + rng.uniform(0.02, 0.3)


def flags(relief: Relief, f: Facade, rng: Generator) -> None:
    for _ in range(int(rng.integers(1, 4))):
        x, y = (int(rng.integers(1, f.bays)) if f.bays > 1 else 0.5) * f.bay_m, f.ground_m + 0.8 * f.floor_m
        hues = [jitter(rng, f.accent, 60) for _ in range(3)]
        for i, hue in enumerate(hues):
            relief.rect(x - 0.45 + 0.3 * i, y - 2.4, 0.3, 2.9, hue, 0.5)
        relief.rect(x - 0.6, y + 0.45, 1.2, 0.1, (50, 60, 70), 0.6)


def pipes(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw drainpipes and air conditioners."""
    for x in rng.uniform(0.02, 0.98, 2) * f.width_m:
        relief.rect(x, 0, 0.14, f.eaves_m, shade(f.wall, 0.5), 0.2)
    for _ in range(int(rng.integers(1, 6))):
        bay, floor = int(rng.integers(f.bays)), int(rng.integers(f.floors))
        x, y = bay * f.bay_m + 0.05, f.storey_m(floor + 0.1)
        relief.rect(x, y, 0.9, 0.6, (205, 208, 208), 0.5)
        relief.disc(x + 0.3, y + 0.3, 0.22, (120, 122, 122), 0.45)


def ivy(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw leaves that climb from one corner."""
    right = rng.random() < 0.5
    span, reach = rng.uniform(0.15, 0.4) * f.width_m, rng.uniform(0.6, 1.0) * f.eaves_m
    for _ in range(int(55 * span * reach / 4)):
        y = reach * rng.random() ** 1.3
        x = span * (1 - y / reach) ** 0.5 * rng.random() ** 0.8
        leaf = jitter(rng, (48, 98, 62), 13)
        relief.disc(f.width_m - x if right else x, y, rng.uniform(0.1, 0.22), leaf, rng.uniform(0.1, 0.3))
