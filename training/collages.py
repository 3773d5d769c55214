"""Abstract images: overlapping shapes of all sizes, flat, shaded or textured, some in rows.

Façades alone would teach only the appearance of façades; collages teach corners, textures and colours in any
arrangement.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from cvnet_engine.engine.contract import Array
from scenes.materials import smooth_noise

SIDE_PX = 384
SHAPES = (30, 140)
ROWS = (2, 6)  # groups of equal shapes, like windows in a wall


def collage(seed: int, index: int) -> Array:
    """Draw a collage (SIDE_PX, SIDE_PX, 3) uint8, BGR, determined by `seed` and `index`."""
    rng = np.random.default_rng((seed, index))
    paints = [texture(rng) for _ in range(5)]
    canvas = paints[0].copy()
    rows = set(rng.integers(0, SHAPES[0], int(rng.integers(*ROWS))).tolist())
    for number in range(int(rng.integers(*SHAPES))):
        paint = paints[rng.integers(5)] if rng.random() < 0.4 else colour(rng)[None, None]
        outline, centre = shape(rng), rng.uniform(0, SIDE_PX, 2)
        steps = row_of_steps(rng, outline) if number in rows else np.zeros((1, 2))
        mask = np.zeros(canvas.shape[:2], np.uint8)
        for step in steps:
            cv2.fillPoly(mask, [np.round((outline + centre + step) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        x, y, w, h = cv2.boundingRect(mask)
        box = slice(y, y + h), slice(x, x + w)
        alpha = mask[box][..., None].astype(np.float32) / 255 * (1 if rng.random() < 0.8 else 0.6)
        canvas[box] = canvas[box] * (1 - alpha) + (paint[box] if paint.size > 3 else paint) * alpha
    return canvas


def colour(rng: Generator) -> Array:
    """Choose a BGR colour, usually of low saturation."""
    grey = rng.uniform(20, 240)
    return np.clip(grey + rng.normal(0, 1, 3) * float(rng.choice([8, 20, 60])), 0, 255).astype(np.float32)


def shape(rng: Generator) -> Array:
    """Choose an outline (N, 2) px about the origin; small ones are more frequent."""
    size = 6 * (SIDE_PX / 3 / 6) ** (rng.random() ** 1.7)
    corners = int(rng.choice([3, 4, 4, 4, 5, 6, 24]))
    if corners == 4 and rng.random() < 0.7:
        half = size * np.array([1, rng.uniform(0.15, 1)])
        outline = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners)) if corners < 24 else np.linspace(0, 6.2, 24)
        outline = np.stack([np.cos(angles), np.sin(angles) * rng.uniform(0.4, 1)], 1) * size
    turn = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)], p=[0.4, 0.2, 0.4])
    turned: Array = outline @ np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
    return turned


def row_of_steps(rng: Generator, outline: Array) -> Array:
    """Return the offsets (N, 2) px of a grid of copies of a shape."""
    pitch: Array = np.ptp(outline, axis=0) * rng.uniform(1.15, 2.2, 2) + 2
    columns, rows = rng.integers(2, 8), rng.integers(1, 6)
    u, v = np.meshgrid(np.arange(columns) - columns / 2, np.arange(rows) - rows / 2)
    return np.stack([u.ravel(), v.ravel()], 1) * pitch


def texture(rng: Generator) -> Array:
    """Draw two colours mixed by a pattern, with grain, (SIDE_PX, SIDE_PX, 3) uint8."""
    pattern = PATTERNS[rng.integers(len(PATTERNS))](rng)[..., None]  # (SIDE_PX, SIDE_PX, 1) float32, 0 to 1
    grain = rng.standard_normal((SIDE_PX, SIDE_PX, 1), np.float32) * np.float32(rng.choice([0, 4, 12]))
    low, high = colour(rng), colour(rng)
    mixed: Array = low + pattern * (high - low) + grain
    return np.clip(mixed, 0, 255).astype(np.uint8)


def clouds(rng: Generator) -> Array:
    noise = smooth_noise(rng, (SIDE_PX, SIDE_PX), rng.choice([4, 12, 40, 120]), int(rng.integers(1, 5)))
    return logistic(noise * np.float32(rng.choice([1, 3, 12])))


def stripes(rng: Generator) -> Array:
    """Draw waves along one direction, or along two that cross."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX].astype(np.float32)
    turn, period = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)]), rng.uniform(4, 40)
    across, along = np.float32(np.cos(turn) * 2 * np.pi / period), np.float32(np.sin(turn) * 2 * np.pi / period)
    waves = np.sin(x * across + y * along)
    if rng.random() < 0.5:
        waves = waves * np.sin((y * across - x * along) * np.float32(rng.uniform(0.5, 2)))
    return logistic(waves * np.float32(rng.choice([2, 20])))


def fade(rng: Generator) -> Array:
    y, x = np.mgrid[-1 : 1 : SIDE_PX * 1j, -1 : 1 : SIDE_PX * 1j].astype(np.float32)
    turn = rng.uniform(0, 2 * np.pi)
    across: Array = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))
    return np.clip(0.5 + 0.5 * across, 0, 1)


def logistic(values: Array) -> Array:
    """Map values to 0 to 1 by the logistic function."""
    squeezed: Array = 1 / (1 + np.exp(-values))
    return squeezed


PATTERNS: tuple[Callable[[Generator], Array], ...] = (clouds, clouds, stripes, fade)
