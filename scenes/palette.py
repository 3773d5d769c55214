"""Colours, and random choices among them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator

Colour = tuple[int, int, int]  # blue, green, red


def pick(rng: Generator, options: tuple[Any, ...]) -> Any:
    return options[int(rng.integers(len(options)))]


def colours(hexes: str) -> tuple[Colour, ...]:
    """Parse 'rrggbb rrggbb ...' to colours."""
    return tuple((int(h[4:6], 16), int(h[2:4], 16), int(h[0:2], 16)) for h in hexes.split())


def jitter(rng: Generator, colour: Colour, spread: float) -> Colour:
    b, g, r = np.clip(np.array(colour) + rng.normal(0, spread) + rng.normal(0, 0.5 * spread, 3), 0, 255)
    return int(b), int(g), int(r)


def shade(colour: Colour, factor: float) -> Colour:
    """Darken (factor below 1) or lighten (above 1) a colour."""
    b, g, r = (int(min(c * factor, 255)) for c in colour)
    return b, g, r
