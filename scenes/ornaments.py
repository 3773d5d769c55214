"""Ornaments, which distinguish a building from others of its family: patterns, carvings, fittings, signs."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from scenes.facade import Facade
from scenes.materials import Colour, azulejo, jitter, pick, pick_colour, shade
from scenes.relief import Relief, by_name, ellipse, opening


def diaper(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw a lattice of another colour into the wall."""
    step, ink = rng.uniform(1.0, 2.2), shade(f.wall, pick(rng, (0.6, 1.3)))
    wall = opening("flat", f.width_m / 2, f.ground_m, f.width_m, f.eaves_m - f.ground_m)
    for slope in (-1, 1):
        for x in np.arange(-f.eaves_m, f.width_m + f.eaves_m, step):
            a, b, side = np.array([x, 0.0]), np.array([x + slope * f.eaves_m, f.eaves_m]), np.array([0.1, 0.0])
            relief.fill([a - side, a + side, b + side, b - side], ink, 0.0, clip=wall)


def timber(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw posts, rails and braces; each building has its own pattern of braces."""
    braces = [pick(rng, ("/", "\\", "x", "v", "none", "|")) for _ in range(3)]
    rail = 0.26 * f.floor_m
    for floor in range(f.floors):
        y = f.storey_m(floor)
        for up in (0, rail, f.floor_m - 0.25):
            relief.rect(0, y + up, f.width_m, 0.24, f.trim, 0.06)
        for post in range(f.bays + 1):
            x = min(max(post * f.bay_m - 0.13, 0), f.width_m - 0.26)
            relief.rect(x, y, 0.26, f.floor_m, f.trim, 0.06)
        for bay in range(f.bays):
            for line in BRACES[braces[(bay + floor) % 3]]:
                relief.stroke(np.array(line) * (f.bay_m, rail) + (bay * f.bay_m, y), 0.18, f.trim, 0.05)


BRACES: dict[str, list[list[tuple[float, float]]]] = {  # lines through (x, y), as fractions of the bay
    "/": [[(0, 0), (1, 1)]],
    "\\": [[(0, 1), (1, 0)]],
    "x": [[(0, 0), (1, 1)], [(0, 1), (1, 0)]],
    "v": [[(0, 1), (0.5, 0), (1, 1)]],
    "|": [[(x, 0), (x, 1)] for x in (0.25, 0.5, 0.75)],
    "none": [],
}


def bands(relief: Relief, f: Facade, rng: Generator) -> None:
    step, ink = rng.uniform(0.7, 1.8), pick(rng, (f.trim, shade(f.wall, 0.65), f.accent))
    for y in np.arange(f.ground_m, f.eaves_m, step):
        relief.rect(0, y, f.width_m, rng.uniform(0.14, 0.3), ink, 0.03)


def pilasters(relief: Relief, f: Facade, rng: Generator) -> None:
    w, h = rng.uniform(0.35, 0.6), f.eaves_m - f.ground_m
    for bay in range(f.bays + 1):
        x = min(max(bay * f.bay_m, w / 2), f.width_m - w / 2)
        relief.rect(x - w / 2, f.ground_m, w, h, f.trim, 0.2)
        relief.rect(x - w / 8, f.ground_m + 0.5, w / 4, h - 1.2, shade(f.trim, 0.86), 0.12)
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


def quoins(relief: Relief, f: Facade, rng: Generator) -> None:
    high = rng.uniform(0.4, 0.6)
    for i, y in enumerate(np.arange(f.ground_m, f.eaves_m - high, high)):
        w = 0.75 if i % 2 else 0.45
        for x in (-0.04, f.width_m - w + 0.04):
            relief.rect(x, y + 0.03, w, high - 0.06, f.trim, 0.1)


def pipes(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw drainpipes and air conditioners."""
    for x in rng.uniform(0.02, 0.98, 2) * f.width_m:
        relief.rect(x, 0, 0.14, f.eaves_m, shade(f.wall, 0.5), 0.2)
    for _ in range(int(rng.integers(1, 6))):
        x, y = int(rng.integers(f.bays)) * f.bay_m + 0.05, f.storey_m(int(rng.integers(f.floors)) + 0.1)
        relief.rect(x, y, 0.9, 0.6, (205, 208, 208), 0.5)
        relief.disc(x + 0.3, y + 0.3, 0.22, (120, 122, 122), 0.45)


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
            relief.triangle(x, y + 0.05, 0.3, h - 0.1, ink, 0.16)
        elif motif == 2:
            for shift in (-0.16, 0, 0.16):
                relief.rect(x + shift - 0.05, y + 0.05, 0.1, h - 0.1, ink, 0.16)
        else:
            relief.fill([(x - 0.28, y + h / 2), (x, y + 0.04), (x + 0.28, y + h / 2), (x, y + h - 0.04)], ink, 0.16)


def medallion(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw a rosette on each floor, in the bay without windows."""
    for floor in range(f.floors):
        radius = min(0.36 * f.bay_m, 0.36 * f.floor_m)
        rosette(relief, f, rng, f.middle_m(f.blank_bay or 0), f.storey_m(floor + 0.5), radius)


def rosette(relief: Relief, f: Facade, rng: Generator, x: float, y: float, radius: float) -> None:
    """Draw a round relief of rings and petals."""
    relief.disc(x, y, radius, f.trim, 0.3)
    relief.disc(x, y, 0.82 * radius, shade(pick(rng, (f.trim, f.accent)), 0.85), 0.1)
    petals, reach, centre = int(rng.integers(4, 13)), radius * rng.uniform(0.5, 0.78), np.array([x, y])
    for tip in ellipse(0, 0, reach, reach, n=petals + 1)[:-1]:
        side = np.array([-tip[1], tip[0]]) * rng.uniform(0.2, 0.3)
        relief.fill(np.array([0 * tip, tip * 0.6 + side, tip, tip * 0.6 - side]) + centre, f.trim, 0.26)
    relief.disc(x, y, 0.2 * radius, shade(f.trim, 0.9), 0.35)


def niches(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw statues in niches, in the bay without windows."""
    x, h, stone = f.middle_m(f.blank_bay or 0), 0.72 * f.floor_m, shade(f.trim, 0.97)
    for floor in range(f.floors):
        y = f.storey_m(floor) + 0.6
        relief.fill(opening("round", x, y - 0.1, 1.5, h + 0.3), f.trim, 0.12)
        relief.fill(opening("round", x, y, 1.1, h), shade(f.wall, 0.55), -0.4)
        relief.rect(x - 0.35, y, 0.7, 0.25, stone, 0.1)
        head = x + rng.uniform(-0.12, 0.12)
        robe = [(x - 0.3, y + 0.2), (x + 0.3, y + 0.2), (head + 0.18, y + 0.66 * h), (head - 0.18, y + 0.66 * h)]
        relief.fill(robe, stone, 0.1)
        relief.disc(head, y + 0.76 * h, 0.15, stone, 0.15)
        hand = head + pick(rng, (-1, 1)) * 0.38, y + rng.uniform(0.4, 0.8) * h
        relief.stroke([(head, y + 0.6 * h), hand], 0.13, stone, 0.15)


def rose(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw a rose window over the middle of the front."""
    x, radius = f.width_m / 2, min(0.2 * f.width_m, 0.6 * f.floor_m, 2.4)
    y, spokes = f.eaves_m - radius - 0.7, int(rng.integers(6, 15))
    relief.disc(x, y, radius + 0.35, f.trim, 0.25)
    relief.disc(x, y, radius, f.glass, -0.3)
    hues, centre = [jitter(rng, f.accent, 45) for _ in range(spokes)], np.array([x, y])
    for hue, spoke in zip(hues, ellipse(0, 0, radius, radius, n=spokes + 1), strict=False):
        u, v = spoke * 0.7 + centre
        relief.disc(u, v, 0.22 * radius, shade(hue, 1.2), -0.3)
        relief.stroke([centre, spoke + centre], 0.1, f.trim, 0.0)
    relief.disc(x, y, 0.3 * radius, f.trim, 0.0)
    relief.disc(x, y, 0.2 * radius, shade(f.accent, 1.3), -0.2)


def clock(relief: Relief, f: Facade, rng: Generator) -> None:
    x, y, radius = f.width_m / 2, f.eaves_m - 1.3, rng.uniform(0.8, 1.1)
    relief.disc(x, y, radius + 0.2, f.accent, 0.35)
    relief.disc(x, y, radius, (225, 236, 240), 0.3)
    centre = np.array([x, y])
    for mark in ellipse(0, 0, radius, radius, n=13)[:-1]:
        relief.stroke([mark * 0.78 + centre, mark * 0.94 + centre], 0.09, (40, 40, 45), 0.3)
    for reach in (0.55 * radius, 0.8 * radius):
        angle = rng.uniform(0, 2 * np.pi)
        relief.stroke([(x, y), (x + reach * np.cos(angle), y + reach * np.sin(angle))], 0.1, (30, 30, 35), 0.32)


def mural(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw a painted wall of shapes in a few colours, in the bay without windows."""
    x, y, w = (f.blank_bay or 0) * f.bay_m + 0.15, f.ground_m + 0.2, f.bay_m - 0.3
    h = f.eaves_m - y - 0.4
    frame = opening("flat", x + w / 2, y, w, h)
    hues = [jitter(rng, f.accent, 55) for _ in range(3)] + [jitter(rng, (200, 215, 225), 25)]
    relief.fill(frame, hues[3], 0.0)
    for _ in range(16):
        u, v, size = x + rng.uniform(0, w), y + rng.uniform(0, h), rng.uniform(0.2, 0.5) * w
        corners, turn = pick(rng, (3, 4, 5, 24)), rng.uniform(0, 6)
        shape = ellipse(u, v, size, size * rng.uniform(0.6, 1.6), turn, turn + 2 * np.pi, corners + 1)
        relief.fill(shape, pick(rng, hues), 0.0, clip=frame)


def shutters(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw louvred shutters beside the windows, a few of them closed."""
    w, h = f.bay_m * f.fullness[0], f.floor_m * f.fullness[1]
    leaf = min(w / 2, (f.bay_m - w) / 2 - 0.06)
    for floor in range(f.floors - (f.floors > 1 and f.top_window == "oculus")):
        for bay in range(f.bays):
            if bay == f.blank_bay:
                continue
            x, y = f.middle_m(bay), f.storey_m(floor + 0.28)
            closed = rng.random() < 0.12
            width = w / 2 if closed else leaf
            for side in (-1, 1):
                left = x + (side - 1) * w / 4 if closed else x + side * (w / 2 + leaf / 2 + 0.02) - leaf / 2
                relief.rect(left, y, width, h * 0.88, shade(f.accent, 0.8), 0.1)
                for v in np.arange(y + 0.1, y + h * 0.88 - 0.1, 0.16):
                    relief.rect(left + 0.07, v, width - 0.14, 0.09, shade(f.accent, 1.2), 0.13)


def balconies(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw slabs with railings, under every window of some floors or along the whole floor."""
    iron = pick(rng, ((45, 45, 48), f.trim, f.accent))
    spans = [((bay + 0.12) * f.bay_m, 0.76 * f.bay_m) for bay in range(f.bays)]
    if rng.random() < 0.4:
        spans = [(0.2, f.width_m - 0.4)]
    for floor in range(f.floors):
        if rng.random() < 0.35 and floor:
            continue
        y = f.storey_m(floor + 0.2)
        for x, w in spans:
            relief.rect(x, y - 0.18, w, 0.2, f.trim, 0.8)
            for u in np.arange(x + 0.05, x + w, 0.19):
                relief.rect(u, y, 0.06, 0.95, iron, 0.75)
            relief.rect(x, y + 0.92, w, 0.09, iron, 0.8)


def boxes(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw flowers under the windows."""
    bloom, w = pick_colour(rng, "c8324a d9577a e0b23a b04fa0 e06a3a"), f.bay_m * f.fullness[0]
    for floor in range(f.floors):
        for bay in range(f.bays):
            if rng.random() < 0.35:
                continue
            x, y = f.middle_m(bay), f.storey_m(floor + 0.28)
            relief.rect(x - w / 2, y - 0.22, w, 0.24, (52, 72, 98), 0.35)
            for _ in range(int(24 * w)):
                u, v, radius = x + rng.uniform(-0.55, 0.55) * w, y + rng.normal(0.08, 0.1), rng.uniform(0.05, 0.11)
                relief.disc(u, v, radius, bloom if rng.random() < 0.4 else jitter(rng, (50, 110, 60), 14), 0.4)


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
        scallop = ellipse((a + b) / 2 - 0.08, y - 0.75, (b - a) / 2, 0.14, np.pi, 2 * np.pi, 8)
        relief.fill([(a - 0.08, y - 0.75), (b - 0.08, y - 0.75), (b, y), (a, y)], ink, 0.9)
        relief.fill(scallop, shade(ink, 0.85), 0.95)


def laundry(relief: Relief, f: Facade, rng: Generator) -> None:
    for floor in range(f.floors):
        y, x = f.storey_m(floor + 0.2), rng.uniform(0, 0.5) * f.width_m
        end = x + rng.uniform(0.25, 0.5) * f.width_m
        relief.rect(x, y, end - x, 0.04, (60, 60, 60), 0.3)
        while x < end - 0.8:
            w, h = rng.uniform(0.35, 0.8), rng.uniform(0.4, 1.0)
            relief.rect(x, y - h, w, h, jitter(rng, (190, 180, 185), 45), 0.3)
            x += w + rng.uniform(0.02, 0.3)


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
    relief.stroke(nodes[rng.choice(len(nodes), 4, replace=False)], 0.2 * w, ink, height_m)


def graffiti(relief: Relief, f: Facade, rng: Generator) -> None:
    for _ in range(int(rng.integers(2, 5))):
        x, y = rng.uniform(0.1, 0.7) * f.width_m, rng.uniform(0.5, 1.6)
        t = np.linspace(0, 1, 26)
        swing = sum(rng.normal(0, 0.7) / k * np.sin(2 * np.pi * k * t + rng.uniform(0, 6)) for k in range(1, 5))
        path = np.stack([x + rng.uniform(1.5, 3.5) * t, np.clip(y + swing, 0.2, f.ground_m - 0.4)], 1)
        hue = pick_colour(rng, "e0417a 3aa0d8 f0d040 50c060 f08030 8050d0", 14)
        relief.stroke(path, 0.3, (30, 28, 32), 0.0)
        relief.stroke(path, 0.18, hue, 0.0)


def flags(relief: Relief, f: Facade, rng: Generator) -> None:
    for _ in range(int(rng.integers(1, 4))):
        x, y = (int(rng.integers(1, f.bays)) if f.bays > 1 else 0.5) * f.bay_m, f.ground_m + 0.8 * f.floor_m
        hues = [jitter(rng, f.accent, 60) for _ in range(3)]
        for i, hue in enumerate(hues):
            relief.rect(x - 0.45 + 0.3 * i, y - 2.4, 0.3, 2.9, hue, 0.5)
        relief.rect(x - 0.6, y + 0.45, 1.2, 0.1, (50, 60, 70), 0.6)


def ivy(relief: Relief, f: Facade, rng: Generator) -> None:
    """Draw leaves that climb from one corner."""
    right = rng.random() < 0.5
    span, reach = rng.uniform(0.15, 0.4) * f.width_m, rng.uniform(0.6, 1.0) * f.eaves_m
    for _ in range(int(55 * span * reach / 4)):
        y = reach * rng.random() ** 1.3
        x = span * (1 - y / reach) ** 0.5 * rng.random() ** 0.8
        leaf = jitter(rng, (48, 98, 62), 13)
        relief.disc(f.width_m - x if right else x, y, rng.uniform(0.1, 0.22), leaf, rng.uniform(0.1, 0.3))


# in drawing order
UNDER_WINDOWS = by_name(diaper, timber, bands, pilasters, tilework, fins)
OVER_WINDOWS = by_name(quoins, pipes, frieze, medallion, niches, rose, clock, mural, shutters)
OVER_WINDOWS |= by_name(balconies, boxes, awnings, laundry, sign, graffiti, flags, ivy)
