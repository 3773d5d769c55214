"""Colours and random choices among them; textures of walls and roofs at the scale of the canvas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator

from cvnet_engine.engine.contract import Array

CANVAS_PX_PER_M = 36
Colour = tuple[int, int, int]  # blue, green, red


def pick(rng: Generator, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def jitter(rng: Generator, colour: Colour, spread: float) -> Colour:
    b, g, r = np.clip(np.array(colour) + rng.normal(0, spread) + rng.normal(0, 0.5 * spread, 3), 0, 255)
    return int(b), int(g), int(r)


def pick_colour(rng: Generator, hexes: str, spread: float = 0.0) -> Colour:
    """Choose a colour from 'rrggbb rrggbb ...', and vary it unless `spread` is 0."""
    b, g, r = bytes.fromhex(pick(rng, hexes.split()))[::-1]
    return jitter(rng, (b, g, r), spread) if spread else (b, g, r)


def shade(colour: Colour, factor: float) -> Colour:
    """Darken (factor below 1) or lighten (above 1) a colour."""
    b, g, r = (int(min(c * factor, 255)) for c in colour)
    return b, g, r


def smooth_noise(rng: Generator, shape: tuple[int, int], cell_px: float, octaves: int = 3) -> Array:
    """Return smooth noise (H, W) float32 with mean 0 and a standard deviation near 1."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        cell = max(cell_px / 2**octave, 1.0)
        small = rng.standard_normal((int(shape[0] / cell) + 2, int(shape[1] / cell) + 2)).astype(np.float32)
        total += cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC) / 2**octave
    return total


def _tinted(colour: Colour | Array, light: Array) -> Array:
    """Multiply a colour or an image (H, W, 3) by relative light (H, W); returns (H, W, 3) uint8."""
    return np.clip(np.asarray(colour, np.float32) * light[..., None], 0, 255).astype(np.uint8)


def courses(
    rng: Generator, shape: tuple[int, int], colour: Colour, row_m: float, unit_m: float, vary: float, joint: float
) -> Array:
    """Draw rows of bricks, blocks, planks or panels, with slightly different tones and darker or lighter joints."""
    row_px, unit_px = max(int(row_m * CANVAS_PX_PER_M), 3), max(int(unit_m * CANVAS_PX_PER_M), 5)
    y, x = np.arange(shape[0])[::-1, None], np.arange(shape[1])[None]
    row = y // row_px
    shift = np.where(row % 2, unit_px // 2, 0) + rng.integers(0, max(unit_px // 4, 1), shape[0] // row_px + 1)[row]
    unit = (x + shift) // unit_px
    tones = rng.normal(1, vary, (int(row.max()) + 1, int(unit.max()) + 1)).astype(np.float32)
    light = tones[row, unit] * (1 + 0.05 * smooth_noise(rng, shape, 60))
    light = np.where((y % row_px == 0) | ((x + shift) % unit_px == 0), joint, light)
    return _tinted(colour, light.astype(np.float32))


def _stucco(rng: Generator, shape: tuple[int, int], colour: Colour) -> Array:
    streaks = cv2.resize(smooth_noise(rng, (shape[0] // 8 + 1, shape[1]), 24), shape[::-1])
    grain = 0.025 * rng.standard_normal(shape).astype(np.float32)
    return _tinted(colour, 1 + 0.035 * smooth_noise(rng, shape, 120) + 0.03 * streaks + grain)


def _rubble(rng: Generator, shape: tuple[int, int], colour: Colour) -> Array:
    """Draw irregular stones, the Voronoi cells of random points."""
    seeds = np.ones(shape, np.uint8)
    count = shape[0] * shape[1] // 260
    seeds[rng.integers(0, shape[0], count), rng.integers(0, shape[1], count)] = 0
    _, cells = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    tones = rng.normal(1, 0.12, int(cells.max()) + 1).astype(np.float32)[cells]
    joints = (cells != np.roll(cells, 1, 0)) | (cells != np.roll(cells, 1, 1))
    return _tinted(colour, np.where(joints, 0.68, tones) * (1 + 0.05 * smooth_noise(rng, shape, 80)))


def azulejo(rng: Generator, shape: tuple[int, int], colour: Colour) -> Array:
    """Draw painted tiles with one random motif, mirrored into a square and repeated."""
    half = int(rng.integers(7, 12))
    motif = cv2.GaussianBlur(rng.standard_normal((half, half)).astype(np.float32), (0, 0), half / 6)
    motif = np.pad(motif + motif.T, (0, half), "symmetric")
    low, high = np.quantile(motif, [0.35, 0.7])
    inks = np.array([(238, 240, 240), colour, shade(colour, 0.55)], np.float32)
    tile = inks[(motif > low).astype(int) + (motif > high)]
    tile[0], tile[:, 0] = (190, 195, 196), (190, 195, 196)
    wall = np.tile(tile, (shape[0] // len(tile) + 1, shape[1] // len(tile) + 1, 1))[: shape[0], : shape[1]]
    return _tinted(wall, 1 + 0.04 * smooth_noise(rng, shape, 90))


MATERIALS: dict[str, Callable[[Generator, tuple[int, int], Colour], Array]] = {
    "brick": partial(courses, row_m=0.14, unit_m=0.42, vary=0.11, joint=1.22),
    "ashlar": partial(courses, row_m=0.55, unit_m=1.2, vary=0.05, joint=0.72),
    "planks": partial(courses, row_m=0.28, unit_m=5.0, vary=0.05, joint=0.6),
    "panels": partial(courses, row_m=1.6, unit_m=2.1, vary=0.045, joint=0.55),
    "stucco": _stucco,
    "rubble": _rubble,
    "azulejo": azulejo,
}
