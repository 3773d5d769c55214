"""Occluders between camera and façade: people, lamps, vehicles, trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from cvnet_engine.engine.contract import Array
from scenes.facade import Facade
from scenes.materials import jitter, pick, pick_colour, shade
from scenes.projection import see, upright


@dataclass(frozen=True)
class Occluder:
    """An object between camera and façade, standing on the street at (x, z) metres."""

    kind: str
    x_m: float
    z_m: float
    seed: int


def choose_occluders(rng: Generator, facade: Facade, effort: float) -> tuple[Occluder, ...]:
    kinds = ("person", "person", "person", "lamp", "vehicle", "tree")
    near = facade.width_m * (0.15 + 0.75 * effort)
    return tuple(
        Occluder(
            kind=pick(rng, kinds),
            x_m=rng.uniform(-0.1, 1.1) * facade.width_m,
            z_m=rng.uniform(1.5, 2.5 + near),
            seed=int(rng.integers(2**31)),
        )
        for _ in range(rng.poisson(1.2 + 4 * effort))
    )


def draw_occluders(occluders: Sequence[Occluder], camera: Array, size: tuple[int, int]) -> Array:
    """Draw all occluders, (H, W, 4) uint8, premultiplied."""
    layer: Array = np.zeros((*size, 4), np.float32)
    for occluder in sorted(occluders, key=lambda o: o.z_m):
        canvas, metres_per_px = SPRITES[occluder.kind](np.random.default_rng(occluder.seed))
        h, w = canvas.shape[:2]
        left = occluder.x_m - w / 2 * metres_per_px
        plane = upright(metres_per_px, left, h * metres_per_px, occluder.z_m)
        seen = see(canvas, plane, camera, size).astype(np.float32)
        layer = layer * (1 - seen[..., 3:] / 255) + seen
    return layer.astype(np.uint8)


def person(rng: Generator) -> tuple[Array, float]:
    canvas = np.zeros((180, 80, 4), np.uint8)
    coat, legs, skin = (jitter(rng, c, 45) for c in ((110, 90, 100), (80, 70, 60), (130, 160, 205)))
    stride = int(rng.integers(4, 16))
    for side in (-1, 1):
        cv2.line(canvas, (40, 100), (40 + side * stride, 176), (*legs, 255), 13, cv2.LINE_AA)
        hand = (40 + side * (18 + stride // 3), 96)
        cv2.line(canvas, (40 + side * 14, 50), hand, (*shade(coat, 0.85), 255), 9, cv2.LINE_AA)
    cv2.ellipse(canvas, (40, 70), (18, 36), 0, 0, 360, (*coat, 255), -1, cv2.LINE_AA)
    cv2.circle(canvas, (40, 20), 12, (*skin, 255), -1, cv2.LINE_AA)
    cv2.ellipse(canvas, (40, 15), (12, 9), 0, 180, 360, (*shade(legs, 0.6), 255), -1, cv2.LINE_AA)
    return canvas, rng.uniform(1.6, 1.9) / 180


def lamp(rng: Generator) -> tuple[Array, float]:
    canvas = np.zeros((300, 60, 4), np.uint8)
    iron = (*jitter(rng, (58, 62, 56), 8), 255)
    cv2.line(canvas, (30, 300), (30, 46), iron, 5, cv2.LINE_AA)
    cv2.rectangle(canvas, (25, 262), (35, 300), iron, -1)
    cv2.fillPoly(canvas, [np.array([(18, 16), (42, 16), (37, 46), (23, 46)])], (205, 226, 236, 255), cv2.LINE_AA)
    cv2.fillPoly(canvas, [np.array([(14, 17), (46, 17), (30, 2)])], iron, cv2.LINE_AA)
    return canvas, rng.uniform(4.0, 5.2) / 300


def vehicle(rng: Generator) -> tuple[Array, float]:
    """Draw a car or a van from the side."""
    canvas, van = np.zeros((140, 340, 4), np.uint8), rng.random() < 0.3
    paint = pick_colour(rng, "b03028 2f4f80 d8d8d4 303438 c8a030 4f7a5a 8a8f94", 12)
    cabin = [(20, 8), (296, 8), (326, 66), (20, 66)] if van else [(84, 18), (212, 18), (262, 66), (48, 66)]
    cv2.fillPoly(canvas, [np.array(cabin)], (*shade(paint, 0.9), 255), cv2.LINE_AA)
    glass = [(236, 18), (288, 18), (312, 60), (236, 60)] if van else [(90, 25), (206, 25), (246, 62), (64, 62)]
    cv2.fillPoly(canvas, [np.array(glass)], (74, 64, 54, 255), cv2.LINE_AA)
    cv2.line(canvas, (150, 20), (150, 64), (*shade(paint, 0.9), 255), 6)
    cv2.rectangle(canvas, (10, 62), (330, 112), (*paint, 255), -1)
    cv2.rectangle(canvas, (10, 92), (330, 114), (*shade(paint, 0.7), 255), -1)
    for x in (74, 262):
        cv2.circle(canvas, (x, 112), 27, (34, 34, 36, 255), -1, cv2.LINE_AA)
        cv2.circle(canvas, (x, 112), 13, (150, 150, 150, 255), -1, cv2.LINE_AA)
    return (canvas[:, ::-1] if rng.random() < 0.5 else canvas), (2.1 if van else 1.5) / 140


def tree(rng: Generator) -> tuple[Array, float]:
    """Draw a trunk and tufts of leaves, lighter at the top."""
    canvas = np.zeros((420, 340, 4), np.uint8)
    leaf = pick_colour(rng, "5c7a3c 6e8544 4a6a40 9a7a36", 10)
    cv2.line(canvas, (170, 420), (170, 200), (52, 66, 80, 255), 16, cv2.LINE_AA)
    for side in (-1, 1):
        cv2.line(canvas, (170, 290), (170 + side * 70, 190), (52, 66, 80, 255), 8, cv2.LINE_AA)
    for _ in range(320):
        angle, reach = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random())
        x, y = 170 + 130 * reach * np.cos(angle), 150 + 118 * reach * np.sin(angle)
        tone = 1.25 - 0.6 * (y / 270) + rng.normal(0, 0.1)
        cv2.circle(canvas, (int(x), int(y)), int(rng.integers(7, 19)), (*shade(leaf, tone), 255), -1, cv2.LINE_AA)
    return canvas, rng.uniform(5.5, 8.0) / 420


SPRITES: dict[str, Callable[[Generator], tuple[Array, float]]] = {
    draw.__name__: draw for draw in (person, lamp, vehicle, tree)
}
