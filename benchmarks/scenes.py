"""Generated retrieval data sets in the revisitop layout: street façades, photographed from several places.

A *scene* is one instance: a building with its own geometry, materials, ornament and neighbours. A *view* is one
photograph of it: a pinhole camera, light, weather, passers-by, lens and sensor. Scenes are drawn from a few families
that share materials and colours, so neither alone tells two buildings apart. Everything follows from (seed, scene,
view); images are byte-identical for one version of numpy and OpenCV.

Units: metres for buildings (x right, y up, z out of the façade), _px for pixels, _deg for degrees. Images are BGR.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[Any]
Outline = Array | Sequence[tuple[float, float]]  # (N, 2) metres
Colour = tuple[int, int, int]  # blue, green, red

CANVAS_PX_PER_M = 36
EYE_M = 1.7
FIRST_VIEWS_MILD = 2  # the query and one view that is sure to match it
JPEG_QUALITY = 85
GRID = 24  # samples a side of the façade, to measure what two views have in common


@dataclass(frozen=True)
class SceneSet:
    """A data set to generate: `scenes` x `views` images, the first view of a scene its query, and `distractors`."""

    name: str
    seed: int
    scenes: int
    views: int
    distractors: int
    size: tuple[int, int]  # (height, width) px; a portrait view swaps them


DEMO = SceneSet("demo", seed=7, scenes=12, views=6, distractors=10, size=(240, 320))


@dataclass(frozen=True)
class Family:
    """What buildings of one kind choose from; colours are RGB hex."""

    materials: tuple[str, ...]
    walls: str
    trims: str
    tiles: str
    accents: str
    windows: tuple[str, ...]
    hoods: tuple[str, ...]
    roofs: tuple[str, ...]
    grounds: tuple[str, ...]
    ornaments: tuple[str, ...]


FAMILIES = (
    Family(  # palaces and banks
        materials=("ashlar", "ashlar", "stucco"),
        walls="d9cdb4 c9bfae e0d5c0 bdb3a2 d8c39a c7c4bd",
        trims="efe8d8 e6ddca f3efe6",
        tiles="5b6672 6d7a73 4f565e",
        accents="2f5d50 7a2e2a 2e4a72 8a6d2f",
        windows=("flat", "round", "segmental", "round"),
        hoods=("pediment", "lintel", "arched", "keystone"),
        roofs=("pediment", "balustrade", "mansard", "dome", "towers"),
        grounds=("rusticated", "arcade", "portico"),
        ornaments=("pilasters", "frieze", "medallion", "niches", "quoins", "flags", "clock", "balconies"),
    ),
    Family(  # merchants' houses and mills
        materials=("brick", "brick", "brick", "planks"),
        walls="9c4a36 8a3f33 b0634a a45a3c 7d4a40 b57f5c",
        trims="e5dccb d6c7a8 efe9dd c9b18c",
        tiles="4a4a50 8a4b38 5d5148",
        accents="1f4d3a 22384f 7b2620 c48a2a",
        windows=("segmental", "flat", "round", "oculus"),
        hoods=("keystone", "lintel", "none", "arched"),
        roofs=("stepped", "gable", "scrolled", "mansard", "balustrade"),
        grounds=("shop", "arcade", "plain", "rusticated"),
        ornaments=("quoins", "sign", "graffiti", "pipes", "ivy", "bands", "clock", "shutters", "diaper"),
    ),
    Family(  # churches, colleges
        materials=("rubble", "ashlar", "rubble"),
        walls="a79f8e b8ab93 8f8a80 c2b59a 9a8f7d",
        trims="cfc6b2 ddd3bd b9b1a0",
        tiles="4d5560 5f6b5a 6b4d44",
        accents="26456b 6b2431 345c3c",
        windows=("pointed", "pointed", "round", "oculus"),
        hoods=("arched", "none", "keystone"),
        roofs=("gable", "towers", "crenellated", "pediment"),
        grounds=("portal", "arcade", "plain"),
        ornaments=("rose", "niches", "pilasters", "bands", "frieze", "ivy", "clock", "flags", "medallion"),
    ),
    Family(  # half-timbered and painted houses
        materials=("stucco", "planks", "stucco", "brick"),
        walls="e8dcc0 e3c98f d9a58a c9d0bb b7c4c9 e6b86a",
        trims="4b3527 5d3f2c 3a2e2a 6a5140",
        tiles="8f4a35 7a3f33 5f4a40",
        accents="7c2d26 2f5a45 2d4b6e b5832b",
        windows=("flat", "flat", "segmental"),
        hoods=("none", "lintel"),
        roofs=("gable", "gable", "mansard", "scrolled"),
        grounds=("shop", "plain", "arcade"),
        ornaments=("timber", "timber", "shutters", "boxes", "sign", "mural", "ivy", "pipes"),
    ),
    Family(  # the south: plaster, shutters, tiles
        materials=("stucco", "azulejo", "stucco", "azulejo"),
        walls="e2a35c d98a63 e9c9a0 d4786a 8fb0b5 c7d3cf e8d27a",
        trims="f4ecdc e9dcc3 fbf6ea",
        tiles="b0603f a5573a c07850",
        accents="2e6b4f 27548a 8a3b2a 3e7d86",
        windows=("flat", "round", "segmental", "flat"),
        hoods=("lintel", "none", "pediment"),
        roofs=("eaves", "balustrade", "scrolled", "towers"),
        grounds=("arcade", "shop", "plain"),
        ornaments=("shutters", "balconies", "boxes", "mural", "tilework", "sign", "quoins", "awnings", "laundry"),
    ),
    Family(  # the last hundred years
        materials=("panels", "panels", "brick", "stucco"),
        walls="b9bcbb 8f9698 d3cfc6 a87c62 5f6a72 c9b9a0",
        trims="e8e8e4 3b4046 c98b3a d7d2c8",
        tiles="5a6066 474c52",
        accents="d1502f 1f7a8c e0a526 4b6b3c",
        windows=("flat", "flat", "flat", "oculus"),
        hoods=("none", "lintel"),
        roofs=("balustrade", "fins", "eaves", "stepped"),
        grounds=("shop", "plain", "portico"),
        ornaments=("mural", "balconies", "fins", "graffiti", "sign", "bands", "pipes", "awnings", "diaper"),
    ),
)


@dataclass(frozen=True)
class Facade:
    """One building's front. Hashable: its drawing is cached; `seed` decides the details."""

    seed: tuple[int, ...]
    bays: int
    bay_m: float
    floors: int
    floor_m: float
    ground_m: float
    roof_m: float
    material: str
    wall: Colour
    trim: Colour
    tile: Colour
    accent: Colour
    glass: Colour
    window: str
    top_window: str
    hood: str
    panes: tuple[int, int]  # columns, rows
    fullness: tuple[float, float]  # window width over bay, height over floor
    roof: str
    ground: str
    ornaments: tuple[str, ...]

    @property
    def width_m(self) -> float:
        return self.bays * self.bay_m

    @property
    def eaves_m(self) -> float:
        return self.ground_m + self.floors * self.floor_m

    @property
    def height_m(self) -> float:
        return self.eaves_m + self.roof_m


@dataclass(frozen=True)
class Scene:
    """One instance: the building, the houses left and right of it (or its bare sides), and the street."""

    main: Facade
    left: Facade | None
    right: Facade | None
    depth_m: float
    street: Colour
    pavement: Colour
    seed: tuple[int, ...]


@dataclass(frozen=True)
class Occluder:
    """Something between camera and façade, standing on the street at (x, z) metres."""

    kind: str
    x_m: float
    z_m: float
    seed: int


@dataclass(frozen=True)
class View:
    """One photograph: where the camera stands, what it frames, the light, the lens and who walks by."""

    size: tuple[int, int]  # (height, width) px
    yaw_deg: float  # 0 looks straight at the façade, positive from its right
    distance: float  # in façade diagonals
    eye_m: float
    fill: float  # how much of the frame the façade spans; above 1 crops it
    aim: tuple[float, float]  # the point of the façade in the centre, as fractions of width and height
    roll_deg: float
    sun_deg: float  # direction the light comes from, on the façade, from straight above
    sunlight: float  # 0 overcast, 1 bright sun
    gain: float
    gamma: float
    warmth: float  # red over blue, log
    shade: tuple[float, float]  # a soft shadow across the picture: strength, direction in degrees
    sky: str
    blur_px: float
    noise: float
    occluders: tuple[Occluder, ...]
    seed: tuple[int, ...]


# ------------------------------------------------------------------------------------------------ random choices


def build_scene(seed: int, index: int) -> Scene:
    """The scene of that index: the same building whatever set it is part of."""
    rng = np.random.default_rng((seed, index))
    main = _facade(rng, (seed, index, 0))
    return Scene(
        main=main,
        left=_facade(rng, (seed, index, 1)) if rng.random() < 0.5 else None,
        right=_facade(rng, (seed, index, 2)) if rng.random() < 0.5 else None,
        depth_m=rng.uniform(8, 14),
        street=_jitter(rng, _pick(rng, _palette("77777a 6a6a70 8b8378 7d8a63 928a80")), 8),
        pavement=_jitter(rng, _pick(rng, _palette("aaa59b 9c978f b5a68f a8aaac")), 8),
        seed=(seed, index, 3),
    )


def choose_view(seed: int, index: int, number: int, size: tuple[int, int]) -> View:
    """View `number` of a scene. The first ones are mild; later ones may be far, close, oblique or obstructed."""
    rng = np.random.default_rng((seed, index, number + 1000))
    mild = number < FIRST_VIEWS_MILD
    barely = not mild and rng.random() < 0.08
    effort = rng.uniform(0.0, 0.3) if mild else rng.uniform(0.2, 1.0)  # how far from a postcard
    return _view(rng, build_scene(seed, index).main, size, effort, barely)


def _facade(rng: Generator, seed: tuple[int, ...]) -> Facade:
    family = _pick(rng, FAMILIES)
    wide = rng.random() < 0.5
    return Facade(
        seed=seed,
        bays=int(rng.integers(5, 8) if wide else rng.integers(3, 6)),
        bay_m=rng.uniform(2.4, 3.6),
        floors=int(rng.integers(1, 4) if wide else rng.integers(2, 5)),
        floor_m=rng.uniform(3.0, 4.2),
        ground_m=rng.uniform(3.6, 5.2),
        roof_m=rng.uniform(3.2, 5.5),
        material=_pick(rng, family.materials),
        wall=_jitter(rng, _pick(rng, _palette(family.walls)), 14),
        trim=_jitter(rng, _pick(rng, _palette(family.trims)), 8),
        tile=_jitter(rng, _pick(rng, _palette(family.tiles)), 10),
        accent=_jitter(rng, _pick(rng, _palette(family.accents)), 12),
        glass=_jitter(rng, _pick(rng, _palette("33414d 2b353d 3e4a4c 46545c 2a2f3a")), 6),
        window=_pick(rng, family.windows),
        top_window=_pick(rng, family.windows),
        hood=_pick(rng, family.hoods),
        panes=(int(rng.integers(1, 4)), int(rng.integers(1, 5))),
        fullness=(rng.uniform(0.32, 0.66), rng.uniform(0.48, 0.66)),
        roof=_pick(rng, family.roofs),
        ground=_pick(rng, family.grounds),
        ornaments=tuple(sorted(rng.choice(sorted(set(family.ornaments)), int(rng.integers(2, 5)), replace=False))),
    )


def _view(rng: Generator, facade: Facade, size: tuple[int, int], effort: float, barely: bool) -> View:
    """A photograph whose departure from a frontal, clear, well-lit one grows with `effort` in [0, 1]."""
    height, width = size
    tall = facade.height_m > 0.95 * facade.width_m
    portrait = rng.random() < (0.6 if tall else 0.15)
    close = rng.random() < 0.35
    fill = rng.uniform(0.8, 1.0) * (1 + 1.3 * effort**1.5 if close else 1 - 0.62 * effort)
    reach = 0.12 + 0.5 * max(fill - 1, 0)  # how far off the centre the camera may look
    if barely:
        fill, reach = (rng.uniform(0.06, 0.12), 0.2) if close else (rng.uniform(3.5, 5.0), 0.5)
    return View(
        size=(width, height) if portrait else size,
        yaw_deg=float(rng.choice([-1, 1]) * rng.uniform(12 * effort, 12 + 50 * effort)),
        distance=rng.uniform(1.15, 2.0) - 0.35 * effort,
        eye_m=EYE_M + (rng.uniform(0, 9) if rng.random() < 0.3 * effort else 0),
        fill=fill,
        aim=(0.5 + reach * rng.uniform(-1, 1), 0.5 + reach * rng.uniform(-0.8, 0.6)),
        roll_deg=rng.normal(0, 0.6 + 3.0 * effort),
        sun_deg=rng.uniform(-60, 60),
        sunlight=float(np.clip(rng.uniform(-0.2, 1.1), 0, 1)),
        gain=float(np.exp(rng.normal(0.06, 0.05 + 0.24 * effort))),
        gamma=float(np.exp(rng.normal(0, 0.05 + 0.16 * effort))),
        warmth=rng.normal(0, 0.04 + 0.14 * effort),
        shade=(rng.uniform(0, 0.1 + 0.5 * effort), rng.uniform(0, 360)),
        sky=_pick(rng, tuple(SKIES)),
        blur_px=rng.uniform(0.2, 0.45 + 0.8 * effort),
        noise=rng.uniform(1.0, 2.5 + 5.0 * effort),
        occluders=_occluders(rng, facade, effort),
        seed=tuple(int(s) for s in rng.integers(0, 2**31, 2)),
    )


def _occluders(rng: Generator, facade: Facade, effort: float) -> tuple[Occluder, ...]:
    kinds = ("person", "person", "person", "lamp", "vehicle", "tree")
    count = rng.poisson(1.2 + 4 * effort)
    near = facade.width_m * (0.15 + 0.75 * effort)
    return tuple(
        Occluder(
            _pick(rng, kinds),
            rng.uniform(-0.1, 1.1) * facade.width_m,
            rng.uniform(1.5, 2.5 + near),
            int(rng.integers(2**31)),
        )
        for _ in range(count)
    )


def _pick(rng: Generator, options: tuple[Any, ...]) -> Any:
    return options[int(rng.integers(len(options)))]


def _palette(hexes: str) -> tuple[Colour, ...]:
    """'rrggbb rrggbb ...' -> colours."""
    return tuple((int(h[4:6], 16), int(h[2:4], 16), int(h[0:2], 16)) for h in hexes.split())


def _jitter(rng: Generator, colour: Colour, spread: float) -> Colour:
    b, g, r = np.clip(np.array(colour) + rng.normal(0, spread) + rng.normal(0, 0.5 * spread, 3), 0, 255)
    return int(b), int(g), int(r)


def _tone(colour: Colour, factor: float) -> Colour:
    """Darker below 1, lighter above."""
    b, g, r = (int(min(c * factor, 255)) for c in colour)
    return b, g, r


# ------------------------------------------------------------------------------------------------ materials


def _noise(rng: Generator, shape: tuple[int, int], cell_px: float, octaves: int = 3) -> Array:
    """Smooth noise, (H, W) float32 about 0 with a spread near 1."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        cell = max(cell_px / 2**octave, 1.0)
        small = rng.standard_normal((int(shape[0] / cell) + 2, int(shape[1] / cell) + 2)).astype(np.float32)
        total += cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC) / 2**octave
    return total


def _tinted(colour: Colour, light: Array) -> Array:
    """A colour under (H, W) relative light -> (H, W, 3) uint8."""
    return np.clip(np.array(colour, np.float32) * light[..., None], 0, 255).astype(np.uint8)


def _courses(
    rng: Generator, shape: tuple[int, int], colour: Colour, row_m: float, unit_m: float, vary: float, joint: float
) -> Array:
    """Bricks, blocks, planks or panels: rows of units of slightly different tone, with darker or lighter joints."""
    row_px, unit_px = max(int(row_m * CANVAS_PX_PER_M), 3), max(int(unit_m * CANVAS_PX_PER_M), 5)
    y, x = np.arange(shape[0])[::-1, None], np.arange(shape[1])[None]
    row = y // row_px
    shift = np.where(row % 2, unit_px // 2, 0) + rng.integers(0, max(unit_px // 4, 1), shape[0] // row_px + 1)[row]
    unit = (x + shift) // unit_px
    tones = rng.normal(1, vary, (int(row.max()) + 1, int(unit.max()) + 1)).astype(np.float32)
    light = tones[row, unit] * (1 + 0.05 * _noise(rng, shape, 60))
    light = np.where((y % row_px == 0) | ((x + shift) % unit_px == 0), joint, light)
    return _tinted(colour, light.astype(np.float32))


def _stucco(rng: Generator, shape: tuple[int, int], colour: Colour) -> Array:
    streaks = cv2.resize(_noise(rng, (shape[0] // 8 + 1, shape[1]), 24), shape[::-1])
    grain = 0.025 * rng.standard_normal(shape).astype(np.float32)
    return _tinted(colour, 1 + 0.035 * _noise(rng, shape, 120) + 0.03 * streaks + grain)


def _rubble(rng: Generator, shape: tuple[int, int], colour: Colour) -> Array:
    """Irregular stones: the cells around random points."""
    seeds = np.ones(shape, np.uint8)
    count = shape[0] * shape[1] // 260
    seeds[rng.integers(0, shape[0], count), rng.integers(0, shape[1], count)] = 0
    _, cells = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    tones = rng.normal(1, 0.12, int(cells.max()) + 1).astype(np.float32)[cells]
    joints = (cells != np.roll(cells, 1, 0)) | (cells != np.roll(cells, 1, 1))
    return _tinted(colour, np.where(joints, 0.68, tones) * (1 + 0.05 * _noise(rng, shape, 80)))


def _azulejo(rng: Generator, shape: tuple[int, int], colour: Colour) -> Array:
    """A wall of painted tiles: one random motif, mirrored into a square, repeated."""
    half = int(rng.integers(7, 12))
    motif = cv2.GaussianBlur(rng.standard_normal((half, half)).astype(np.float32), (0, 0), half / 6)
    motif = motif + motif.T
    motif = np.hstack([motif, motif[:, ::-1]])
    motif = np.vstack([motif, motif[::-1]])
    low, high = np.quantile(motif, [0.35, 0.7])
    inks = np.array([(238, 240, 240), colour, _tone(colour, 0.55)], np.float32)
    tile = inks[(motif > low).astype(int) + (motif > high)]
    tile[0], tile[:, 0] = (190, 195, 196), (190, 195, 196)
    wall = np.tile(tile, (shape[0] // len(tile) + 1, shape[1] // len(tile) + 1, 1))[: shape[0], : shape[1]]
    return np.clip(wall * (1 + 0.04 * _noise(rng, shape, 90))[..., None], 0, 255).astype(np.uint8)


MATERIALS: dict[str, Callable[[Generator, tuple[int, int], Colour], Array]] = {
    "brick": partial(_courses, row_m=0.14, unit_m=0.42, vary=0.11, joint=1.22),
    "ashlar": partial(_courses, row_m=0.55, unit_m=1.2, vary=0.05, joint=0.72),
    "planks": partial(_courses, row_m=0.28, unit_m=5.0, vary=0.05, joint=0.6),
    "panels": partial(_courses, row_m=1.6, unit_m=2.1, vary=0.045, joint=0.55),
    "stucco": _stucco,
    "rubble": _rubble,
    "azulejo": _azulejo,
}


# ------------------------------------------------------------------------------------------------ drawing façades


class Relief:
    """A flat drawing with depth, in metres: colour, coverage, and height over the wall, which the sun shades."""

    def __init__(self, width_m: float, height_m: float, margin_m: float = 1.0) -> None:
        self.margin_m, self.top_m = margin_m, height_m
        shape = round(height_m * CANVAS_PX_PER_M), round((width_m + 2 * margin_m) * CANVAS_PX_PER_M)
        self.colour = np.zeros((*shape, 3), np.uint8)  # (H, W, 3)
        self.cover = np.zeros(shape, np.uint8)  # (H, W), 0 to 255
        self.height = np.zeros(shape, np.float32)  # (H, W) metres
        self.wall = self.colour  # (H, W, 3) the texture of the wall, for parts made of the same

    def fill(self, outline: Outline, paint: Colour | Array, height_m: float = 0.0, clip: Outline | None = None) -> None:
        """Paints the inside of an outline, (N, 2) metres; `paint` is a colour or a texture as large as the canvas."""
        points = self._pixels(outline)
        x, y, w, h = cv2.boundingRect(np.round(points).astype(np.int32))
        rows, cols = slice(max(y - 1, 0), max(y + h + 1, 0)), slice(max(x - 1, 0), max(x + w + 1, 0))
        inside = self._coverage(points, rows, cols)
        if clip is not None:
            inside = np.minimum(inside, self._coverage(self._pixels(clip), rows, cols))
        if not inside.size:
            return
        alpha = inside[..., None].astype(np.float32) / 255
        ink = paint[rows, cols] if isinstance(paint, np.ndarray) else np.array(paint, np.float32)
        self.colour[rows, cols] = self.colour[rows, cols] * (1 - alpha) + ink * alpha + 0.5
        self.cover[rows, cols] = np.maximum(self.cover[rows, cols], inside)
        self.height[rows, cols][inside > 127] = height_m

    def rect(self, x: float, y: float, w: float, h: float, paint: Colour | Array, height_m: float = 0.0) -> None:
        """A rectangle whose lower left corner is (x, y)."""
        self.fill([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], paint, height_m)

    def disc(self, x: float, y: float, radius: float, paint: Colour | Array, height_m: float = 0.0) -> None:
        self.fill(_ellipse(x, y, radius, radius), paint, height_m)

    def stroke(self, path: Outline, width: float, paint: Colour, height_m: float = 0.0) -> None:
        """A line of that width through (N, 2) points."""
        for a, b in pairwise(np.asarray(path)):
            along = (b - a) / max(np.hypot(*(b - a)), 1e-6)
            side = np.array([-along[1], along[0]]) * width / 2
            self.fill([a + side, b + side, b - side, a - side], paint, height_m)

    def _pixels(self, outline: Outline) -> Array:
        return (np.asarray(outline) * [1, -1] + [self.margin_m, self.top_m]) * CANVAS_PX_PER_M

    def _coverage(self, points: Array, rows: slice, cols: slice) -> Array:
        inside = np.zeros(self.cover[rows, cols].shape, np.uint8)
        if inside.size:
            fixed = np.round((points - [cols.start, rows.start]) * 16).astype(np.int32)
            cv2.fillPoly(inside, [fixed], 255, cv2.LINE_AA, shift=4)
        return inside


Part = Callable[[Relief, Facade, Generator], None]  # draws one part of a façade on its relief


def _ellipse(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 2 * np.pi, n: int = 28) -> Array:
    angle = np.linspace(start, end, n)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1)


def _opening(kind: str, x: float, y: float, w: float, h: float) -> Array:
    """The outline of a window, door or niche: centred on x, standing on y."""
    if kind == "oculus":
        return _ellipse(x, y + h / 2, min(w, h) / 2, min(w, h) / 2)
    t = np.linspace(1, -1, 15)
    rise = {
        "flat": 0 * t,
        "round": np.sqrt(1 - t**2) * w / 2,
        "segmental": (1 - t**2) * 0.16 * w,
        "pointed": np.sqrt(np.maximum(1 - ((1 + abs(t)) / 2) ** 2, 0)) * w,
    }[kind]
    arch = np.stack([x + t * w / 2, y + h - rise.max() + rise], 1)
    return np.vstack([[(x - w / 2, y), (x + w / 2, y)], arch])


@lru_cache(maxsize=6)
def _drawn(facade: Facade) -> Relief:
    """A building's front, its silhouette included."""
    rng = np.random.default_rng(facade.seed)
    relief = Relief(facade.width_m, facade.height_m + 3.5)
    relief.wall = MATERIALS[facade.material](rng, relief.cover.shape, facade.wall)
    ROOFS[facade.roof](relief, facade, rng)
    relief.rect(0, 0, facade.width_m, facade.eaves_m, relief.wall)
    for ornament in UNDER_WINDOWS:
        if ornament in facade.ornaments:
            UNDER_WINDOWS[ornament](relief, facade, rng)
    for floor in range(facade.floors):
        _storey(relief, facade, rng, floor)
    _cornice(relief, facade, rng)
    GROUNDS[facade.ground](relief, facade, rng)
    for ornament in OVER_WINDOWS:
        if ornament in facade.ornaments:
            OVER_WINDOWS[ornament](relief, facade, rng)
    _weather(relief, rng)
    return relief


def _blank_bay(facade: Facade) -> int | None:
    """The bay without windows, where the wall carries a picture, reliefs or statues."""
    has_one = {"mural", "niches", "medallion"} & set(facade.ornaments)
    return facade.seed[-2] % facade.bays if has_one else None


def _storey(relief: Relief, facade: Facade, rng: Generator, floor: int) -> None:
    y = facade.ground_m + floor * facade.floor_m
    top = floor == facade.floors - 1 and facade.floors > 1
    kind = facade.top_window if top else facade.window
    fullness = facade.fullness[1] * (0.85 if top else 1.0)
    for bay in range(facade.bays):
        if bay == _blank_bay(facade):
            continue
        w, h = facade.bay_m * facade.fullness[0], facade.floor_m * fullness
        _window(relief, facade, rng, (bay + 0.5) * facade.bay_m, y + 0.28 * facade.floor_m, w, h, kind)


def _window(relief: Relief, facade: Facade, rng: Generator, x: float, y: float, w: float, h: float, kind: str) -> None:
    """A window with its surround, hood, sill, glass, curtain and glazing bars; x is its middle, y its foot."""
    if facade.hood != "none" or facade.material in ("rubble", "brick"):
        relief.fill(_opening(kind, x, y - 0.08, w + 0.32, h + 0.24), facade.trim, 0.08)
    _hood(relief, facade, x, y, w, h, kind)
    hole = _opening(kind, x, y, w, h)
    relief.fill(hole, _tone(facade.trim, 0.9), -0.18)
    pane = _opening(kind, x, y + 0.06, w - 0.14, h - 0.12)
    relief.fill(pane, facade.glass, -0.28)
    sky = np.array([(x - w, y + h * rng.uniform(0.2, 0.8)), (x + w, y + h * rng.uniform(0.4, 1.0)), (x, y + 2 * h)])
    relief.fill(sky, _tone(facade.glass, rng.uniform(1.3, 1.9)), -0.28, clip=pane)
    if rng.random() < 0.4:
        drop = h * rng.uniform(0.2, 0.75)
        blind = np.array([(x - w, y + h - drop), (x + w, y + h - drop), (x + w, y + h), (x - w, y + h)])
        relief.fill(blind, _tone(facade.trim, rng.uniform(0.7, 0.95)), -0.27, clip=pane)
    columns, rows = facade.panes
    bar = facade.trim if sum(facade.trim) > 330 else _tone(facade.trim, 0.9)
    for c in range(1, columns):
        u = x - w / 2 + w * c / columns
        relief.fill([(u - 0.03, y), (u + 0.03, y), (u + 0.03, y + h), (u - 0.03, y + h)], bar, -0.22, pane)
    for r in range(1, rows):
        v = y + h * r / rows
        relief.fill([(x - w, v - 0.03), (x + w, v - 0.03), (x + w, v + 0.03), (x - w, v + 0.03)], bar, -0.22, pane)
    if kind != "oculus":
        relief.rect(x - w / 2 - 0.2, y - 0.16, w + 0.4, 0.16, facade.trim, 0.16)


def _hood(relief: Relief, facade: Facade, x: float, y: float, w: float, h: float, kind: str) -> None:
    top, half = y + h + 0.14, w / 2 + 0.3
    if facade.hood == "keystone" and kind != "oculus":
        relief.fill(
            [(x - 0.14, top - 0.3), (x + 0.14, top - 0.3), (x + 0.22, top + 0.2), (x - 0.22, top + 0.2)],
            _tone(facade.trim, 1.05),
            0.2,
        )
    if kind in ("oculus", "pointed") or facade.hood in ("none", "keystone"):
        return
    relief.rect(x - half, top, 2 * half, 0.16, facade.trim, 0.25)
    if facade.hood == "pediment":
        relief.fill([(x - half, top + 0.16), (x + half, top + 0.16), (x, top + 0.62)], facade.trim, 0.25)
        relief.fill(
            [(x - half + 0.35, top + 0.2), (x + half - 0.35, top + 0.2), (x, top + 0.46)], _tone(facade.trim, 0.88), 0.1
        )
    if facade.hood == "arched":
        relief.fill(_ellipse(x, top + 0.14, half, 0.5, 0, np.pi), facade.trim, 0.25)
        relief.fill(_ellipse(x, top + 0.16, half - 0.25, 0.28, 0, np.pi), _tone(facade.trim, 0.85), 0.1)


def _cornice(relief: Relief, facade: Facade, rng: Generator) -> None:
    """The ledges over the ground floor and under the roof, the upper one with dentils now and then."""
    width, y = facade.width_m, facade.eaves_m
    if facade.roof in ("gable", "stepped", "scrolled", "fins") and rng.random() < 0.6:
        return
    relief.rect(-0.1, facade.ground_m - 0.2, width + 0.2, 0.26, facade.trim, 0.22)
    relief.rect(-0.2, y - 0.12, width + 0.4, 0.22, facade.trim, 0.42)
    relief.rect(-0.35, y + 0.1, width + 0.7, 0.18, _tone(facade.trim, 1.04), 0.6)
    if rng.random() < 0.7:
        pitch = rng.uniform(0.35, 0.8)
        for x in np.arange(pitch / 2, width, pitch):
            relief.rect(x - pitch / 5, y - 0.38, pitch / 2.5, 0.26, facade.trim, 0.3)


# roofs: everything above the eaves, drawn before the wall


def _roof_gable(relief: Relief, f: Facade, rng: Generator) -> None:
    """One gable over the whole front, or a row of them."""
    count = 1 if f.bays < 5 else int(rng.integers(1, 4))
    step = f.width_m / count
    high = f.roof_m if count == 1 else 0.8 * f.roof_m
    relief.rect(0.4, f.eaves_m - 0.2, f.width_m - 0.8, 0.6 * high, _tiles(f, relief, rng))
    for i in range(count):
        x = (i + 0.5) * step
        relief.fill(
            [(x - step / 2 - 0.3, f.eaves_m), (x + step / 2 + 0.3, f.eaves_m), (x, f.eaves_m + high + 0.35)],
            f.trim,
            0.35,
        )
        relief.fill(
            [(x - step / 2 + 0.3, f.eaves_m - 0.1), (x + step / 2 - 0.3, f.eaves_m - 0.1), (x, f.eaves_m + high - 0.3)],
            relief.wall,
        )
        _window(
            relief,
            f,
            rng,
            x,
            f.eaves_m + 0.16 * high,
            0.26 * step if count > 1 else 1.5,
            0.4 * high,
            _pick(rng, (f.top_window, "oculus", "round")),
        )


def _roof_stepped(relief: Relief, f: Facade, rng: Generator) -> None:
    steps = int(rng.integers(3, 7))
    for i in range(steps):
        half = f.width_m / 2 * (1 - i / steps)
        y = f.eaves_m + f.roof_m * i / steps
        relief.rect(f.width_m / 2 - half - 0.1, y, 2 * half + 0.2, f.roof_m / steps + 0.2, f.trim, 0.2)
        relief.rect(f.width_m / 2 - half, y - 0.3, 2 * half, f.roof_m / steps + 0.3, relief.wall)
    _window(relief, f, rng, f.width_m / 2, f.eaves_m + 0.12 * f.roof_m, 1.3, 0.42 * f.roof_m, f.top_window)


def _roof_scrolled(relief: Relief, f: Facade, rng: Generator) -> None:
    """A curved gable, as in Amsterdam or Lisbon."""
    t = np.linspace(-1, 1, 81)
    neck, waist = rng.uniform(0.3, 0.5), rng.uniform(0.25, 0.5)
    side = np.clip((1 - abs(t)) / (1 - neck), 0, 1)
    profile = np.where(
        abs(t) < neck,
        0.72 + 0.28 * np.sqrt(np.clip(1 - (t / neck) ** 2, 0, 1)),
        waist * side**0.6 + (0.72 - waist) * side**5,
    )
    for grow, paint, height in ((0.3, f.trim, 0.25), (0.0, relief.wall, 0.0)):
        x = f.width_m / 2 + t * (f.width_m / 2 + grow / 2)
        outline = np.stack([x, f.eaves_m + profile * f.roof_m + grow], 1)
        relief.fill(np.vstack([outline, [(f.width_m, f.eaves_m - 0.2), (0, f.eaves_m - 0.2)]]), paint, height)
    _window(
        relief, f, rng, f.width_m / 2, f.eaves_m + 0.25 * f.roof_m, 1.2, 0.4 * f.roof_m, _pick(rng, ("oculus", "round"))
    )


def _roof_pediment(relief: Relief, f: Facade, rng: Generator) -> None:
    relief.rect(0.5, f.eaves_m, f.width_m - 1, 0.4 * f.roof_m, _tiles(f, relief, rng))
    x, half = f.width_m / 2, f.width_m / 2 * (1 if f.bays < 5 else 0.6)
    y, high = f.eaves_m + 0.2, f.roof_m * 0.85
    relief.fill([(x - half - 0.4, y), (x + half + 0.4, y), (x, y + high)], f.trim, 0.5)
    relief.fill([(x - half + 0.6, y + 0.2), (x + half - 0.6, y + 0.2), (x, y + high - 0.45)], relief.wall, 0.05)
    _medallion(relief, f, rng, x, y + 0.36 * high, 0.26 * high)
    for side in (-1, 1):
        relief.fill(_ellipse(x + side * 0.42 * half, y + 0.2, 0.2 * half, 0.24 * high, 0, np.pi), f.trim, 0.2)


def _roof_balustrade(relief: Relief, f: Facade, rng: Generator) -> None:
    """A flat roof behind a parapet with urns or blocks."""
    y, pitch = f.eaves_m + 0.2, rng.uniform(0.35, 0.6)
    relief.rect(0, y, f.width_m, 1.2, _tone(f.wall, 0.55), -0.3)
    for x in np.arange(pitch / 2, f.width_m, pitch):
        relief.rect(x - pitch / 4, y, pitch / 2, 1.1, f.trim)
    relief.rect(-0.2, y + 1.0, f.width_m + 0.4, 0.22, f.trim, 0.3)
    for bay in range(f.bays + 1):
        x = bay * f.bay_m
        relief.rect(x - 0.28, y, 0.56, 1.3, f.trim, 0.25)
        if rng.random() < 0.75 and f.hood != "none":
            relief.fill(_ellipse(x, y + 1.75, 0.3, 0.5), _tone(f.trim, 0.95), 0.35)
    if rng.random() < 0.5:
        _chimneys(relief, f, rng, y + 1.2)


def _roof_mansard(relief: Relief, f: Facade, rng: Generator) -> None:
    y, high = f.eaves_m + 0.15, 0.8 * f.roof_m
    _chimneys(relief, f, rng, y + high - 0.3)
    relief.fill([(0, y), (f.width_m, y), (f.width_m - 0.7, y + high), (0.7, y + high)], _tiles(f, relief, rng), -0.3)
    relief.rect(0.5, y + high - 0.1, f.width_m - 1, 0.22, _tone(f.tile, 0.7), 0.0)
    kind = _pick(rng, ("flat", "round", "segmental", "oculus"))
    every = int(rng.integers(1, 3))
    for bay in range(0, f.bays, every):
        x = (bay + 0.5 * every) * f.bay_m
        if x < f.width_m - 0.8:
            relief.rect(x - 0.75, y, 1.5, 0.66 * high, f.trim, 0.2)
            relief.fill([(x - 0.95, y + 0.66 * high), (x + 0.95, y + 0.66 * high), (x, y + 0.9 * high)], f.trim, 0.35)
            _window(relief, f, rng, x, y + 0.2, 0.95, 0.5 * high, kind)


def _roof_dome(relief: Relief, f: Facade, rng: Generator) -> None:
    """A ribbed dome on a drum, behind a balustrade."""
    _roof_balustrade(relief, f, rng)
    x, y, radius = f.width_m / 2, f.eaves_m + 1.0, min(0.27 * f.width_m, 0.9 * f.roof_m)
    relief.rect(x - radius, y, 2 * radius, 1.3, f.trim, 0.1)
    for i in np.linspace(-0.8, 0.8, 6):
        relief.fill(_opening("round", x + i * radius, y + 0.2, 0.2 * radius, 0.95), f.glass, -0.2)
    metal, rise = _tone(f.accent if rng.random() < 0.5 else f.tile, 1.25), 0.8 * (f.roof_m + 0.8)
    ribs = np.linspace(-1, 1, 13)
    curve = _ellipse(0, y + 1.3, radius, rise, 0, np.pi / 2)  # the rightmost rib, about the axis
    for a, b in pairwise(ribs):  # lighter to the left
        slice_ = np.vstack([curve * [a, 1], curve[::-1] * [b, 1]]) + np.array([x, 0.0])
        relief.fill(slice_, _tone(metal, 1.0 - 0.25 * a), 0.3 * (1 - abs(a + b) / 2))
    for rib in ribs:
        relief.stroke(curve * [rib, 1] + np.array([x, 0.0]), 0.07, _tone(metal, 0.6), 0.3)
    relief.rect(x - 0.35, y + 1.2 + rise, 0.7, 0.9, f.trim, 0.2)
    relief.fill(_ellipse(x, y + 2.1 + rise, 0.45, 0.5, 0, np.pi), metal, 0.3)


def _roof_towers(relief: Relief, f: Facade, rng: Generator) -> None:
    """A tiled roof between one or two towers."""
    relief.rect(0.4, f.eaves_m, f.width_m - 0.8, 0.5 * f.roof_m, _tiles(f, relief, rng), -0.4)
    bays = _pick(rng, ((0,), (f.bays - 1,), (0, f.bays - 1), (f.bays // 2,)))
    pointed, tiles = rng.random() < 0.6, _tiles(f, relief, rng)
    w, top, peak = 0.98 * f.bay_m, f.eaves_m + 0.55 * f.roof_m + 1.2, f.height_m + 3.2
    for bay in bays:
        x = (bay + 0.5) * f.bay_m
        relief.rect(x - w / 2, f.eaves_m - 0.2, w, top - f.eaves_m + 0.2, relief.wall, 0.15)
        _window(relief, f, rng, x, f.eaves_m + 0.6, 0.45 * w, top - f.eaves_m - 1.1, f.window)
        relief.rect(x - w / 2 - 0.2, top, w + 0.4, 0.25, f.trim, 0.45)
        flank = _spire(pointed, w / 2 + 0.2, top + 0.25, peak)  # (N, 2) its right half, about the axis
        relief.fill(np.vstack([flank * [-1, 1], flank[::-1]]) + np.array([x, 0.0]), tiles, 0.1)
        relief.fill(flank + np.array([x, 0.0]), _tone(f.tile, 0.7), 0.1)


def _spire(pointed: bool, half_m: float, foot_m: float, peak_m: float) -> Array:
    if pointed:
        return np.array([(0, foot_m), (half_m, foot_m), (0, peak_m)])
    return np.vstack([[(0, foot_m)], _ellipse(0, foot_m, half_m, 0.6 * (peak_m - foot_m), 0, np.pi / 2)])


def _roof_crenellated(relief: Relief, f: Facade, rng: Generator) -> None:
    tooth = rng.uniform(0.7, 1.2)
    relief.rect(0, f.eaves_m - 0.2, f.width_m, 1.1, relief.wall, 0.1)
    for x in np.arange(tooth / 2, f.width_m - tooth / 2, 2 * tooth):
        relief.rect(x, f.eaves_m + 0.5, tooth, 1.2, relief.wall, 0.1)
        relief.rect(x - 0.06, f.eaves_m + 1.7, tooth + 0.12, 0.14, f.trim, 0.2)
    for bay in (0, f.bays - 1):
        x = (bay + 0.5) * f.bay_m
        relief.rect(x - 0.42 * f.bay_m, f.eaves_m - 0.2, 0.84 * f.bay_m, f.roof_m, relief.wall, 0.25)
        for i in (-0.34, -0.07, 0.2):
            relief.rect(x + i * f.bay_m, f.eaves_m + f.roof_m - 0.3, 0.15 * f.bay_m, 0.7, relief.wall, 0.25)
        relief.fill(_opening("pointed", x, f.eaves_m + 0.3, 0.5, 0.5 * f.roof_m), f.glass, -0.3)


def _roof_eaves(relief: Relief, f: Facade, rng: Generator) -> None:
    """A shallow tiled roof with deep eaves."""
    y, high = f.eaves_m + 0.1, 0.45 * f.roof_m
    _chimneys(relief, f, rng, y + high - 0.2)
    relief.fill(
        [(-0.8, y), (f.width_m + 0.8, y), (f.width_m - 1.5, y + high), (1.5, y + high)], _tiles(f, relief, rng), 0.5
    )
    for x in np.arange(-0.6, f.width_m + 0.6, 0.5):
        relief.rect(x, y - 0.22, 0.16, 0.24, _tone(f.tile, 0.5), 0.5)


def _roof_fins(relief: Relief, f: Facade, rng: Generator) -> None:
    """A set-back glazed storey under a slab."""
    y = f.eaves_m
    relief.rect(0.8, y, f.width_m - 1.6, 0.6 * f.roof_m, _tone(f.glass, 1.3), -0.4)
    for x in np.arange(0.9, f.width_m - 0.8, rng.uniform(0.5, 1.3)):
        relief.rect(x, y, 0.12, 0.6 * f.roof_m, f.trim, 0.1)
    relief.rect(0.2, y + 0.6 * f.roof_m, f.width_m - 0.4, 0.35, f.trim, 0.5)
    relief.rect(-0.05, y - 0.1, f.width_m + 0.1, 0.35, f.trim, 0.25)


def _chimneys(relief: Relief, f: Facade, rng: Generator, y: float) -> None:
    for _ in range(int(rng.integers(1, 4))):
        x, w, h = rng.uniform(0.12, 0.88) * f.width_m, rng.uniform(0.6, 1.4), rng.uniform(0.9, 1.7)
        relief.rect(x - w / 2, y - 1.2, w, h + 1.2, _tone(f.wall, 0.78), 0)
        relief.rect(x - w / 2 - 0.1, y + h - 0.2, w + 0.2, 0.2, _tone(f.wall, 0.6), 0.1)
        for pot in np.arange(x - w / 2 + 0.25, x + w / 2, 0.4):
            relief.rect(pot - 0.1, y + h, 0.2, 0.35, _tone(f.tile, 0.9), 0)


def _tiles(f: Facade, relief: Relief, rng: Generator) -> Array:
    return _courses(rng, relief.cover.shape, f.tile, row_m=0.25, unit_m=0.3, vary=0.1, joint=0.7)


ROOFS: dict[str, Part] = {
    "gable": _roof_gable,
    "stepped": _roof_stepped,
    "scrolled": _roof_scrolled,
    "pediment": _roof_pediment,
    "balustrade": _roof_balustrade,
    "mansard": _roof_mansard,
    "dome": _roof_dome,
    "towers": _roof_towers,
    "crenellated": _roof_crenellated,
    "eaves": _roof_eaves,
    "fins": _roof_fins,
}


# ground floors


def _ground_plain(relief: Relief, f: Facade, rng: Generator) -> None:
    door = int(rng.integers(f.bays))
    relief.rect(-0.02, 0, f.width_m + 0.04, 0.7, _tone(f.trim, 0.75), 0.1)
    for bay in range(f.bays):
        x = (bay + 0.5) * f.bay_m
        if bay == door:
            _door(relief, f, x, 0.62 * f.bay_m, 0.72 * f.ground_m)
        else:
            _window(relief, f, rng, x, 1.0, f.bay_m * f.fullness[0], 0.5 * f.ground_m, f.window)


def _ground_rusticated(relief: Relief, f: Facade, rng: Generator) -> None:
    blocks = _courses(rng, relief.cover.shape, _tone(f.trim, 0.88), row_m=0.5, unit_m=1.1, vary=0.05, joint=0.5)
    relief.rect(-0.08, 0, f.width_m + 0.16, f.ground_m - 0.2, blocks, 0.12)
    door = int(rng.integers(f.bays))
    for bay in range(f.bays):
        x, w = (bay + 0.5) * f.bay_m, 0.55 * f.bay_m
        if bay == door:
            _door(relief, f, x, w * 1.1, 0.78 * f.ground_m)
        else:
            _window(relief, f, rng, x, 1.1, w, 0.5 * f.ground_m, "round" if f.window == "pointed" else f.window)


def _ground_arcade(relief: Relief, f: Facade, rng: Generator) -> None:
    """Arches on piers or columns, dark behind."""
    kind = "pointed" if f.window == "pointed" else _pick(rng, ("round", "segmental"))
    column = rng.random() < 0.5
    for bay in range(f.bays):
        x, w, h = (bay + 0.5) * f.bay_m, 0.8 * f.bay_m, 0.86 * f.ground_m
        relief.fill(_opening(kind, x, 0, w + 0.4, h + 0.2), f.trim, 0.15)
        relief.fill(_opening(kind, x, 0, w, h), _tone(f.wall, 0.34), -0.6)
        relief.fill(_opening("flat", x, 0, 0.5 * w, 0.55 * h), _tone(f.glass, 0.8), -0.6)
    for bay in range(f.bays + 1) if column else ():
        x = bay * f.bay_m
        _column(relief, f, x, 0, 0.55 * f.ground_m, 0.26)


def _ground_portico(relief: Relief, f: Facade, rng: Generator) -> None:
    relief.rect(0, 0, f.width_m, f.ground_m - 0.2, _tone(f.wall, 0.72), -0.2)
    for bay in range(f.bays):
        _door(relief, f, (bay + 0.5) * f.bay_m, 0.5 * f.bay_m, 0.66 * f.ground_m)
    for x in np.linspace(0.35, f.width_m - 0.35, 2 * f.bays - int(rng.integers(0, f.bays))):
        _column(relief, f, x, 0.3, f.ground_m - 0.75, 0.3)
    relief.rect(-0.1, f.ground_m - 0.5, f.width_m + 0.2, 0.4, f.trim, 0.5)
    relief.rect(-0.3, 0, f.width_m + 0.6, 0.18, f.trim, 0.8)
    relief.rect(-0.15, 0.18, f.width_m + 0.3, 0.16, _tone(f.trim, 0.94), 0.6)


def _ground_portal(relief: Relief, f: Facade, rng: Generator) -> None:
    """A church door: arches within arches."""
    x, w, h = f.width_m / 2, min(0.42 * f.width_m, 4.6), 0.95 * f.ground_m
    kind = "pointed" if f.window == "pointed" else "round"
    for i in range(5):
        tone = 0.95 if i % 2 else 0.78
        relief.fill(_opening(kind, x, 0, w * (1 - 0.11 * i), h * (1 - 0.07 * i)), _tone(f.trim, tone), 0.3 - 0.14 * i)
    _door(relief, f, x, w * 0.46, 0.56 * h)
    for side in (0.14, 0.86):
        _window(relief, f, rng, side * f.width_m, 1.0, 0.11 * f.width_m, 0.6 * f.ground_m, kind)


def _ground_shop(relief: Relief, f: Facade, rng: Generator) -> None:
    """Shop fronts, each with its fascia, sign, and sometimes a striped awning."""
    edges = np.unique(np.concatenate([[0, f.bays], rng.integers(1, f.bays, 2)]))
    for first, last in pairwise(edges):
        x, w = first * f.bay_m + 0.15, (last - first) * f.bay_m - 0.3
        paint = _jitter(rng, f.accent, 30)
        relief.rect(x, 0, w, f.ground_m - 0.4, paint, 0.12)
        panes = max(int(w / rng.uniform(1.2, 2.2)), 2)
        door = int(rng.integers(panes))
        for i in range(panes):
            u, pw = x + 0.15 + i * (w - 0.2) / panes, (w - 0.2) / panes - 0.1
            relief.rect(
                u,
                0.1 if i == door else 0.7,
                pw,
                f.ground_m - (1.3 if i == door else 1.9),
                _tone(f.glass, rng.uniform(0.8, 1.5)),
                -0.1,
            )
            for _ in range(0 if i == door else 5):  # what is in the window
                relief.disc(
                    u + rng.uniform(0.15, 0.85) * pw,
                    rng.uniform(0.9, 1.7),
                    rng.uniform(0.08, 0.2),
                    _jitter(rng, (120, 140, 170), 60),
                    -0.1,
                )
        _lettering(relief, rng, x + 0.2, f.ground_m - 1.05, w - 0.4, 0.5, _tone(paint, 0.6), (225, 238, 240))
        if rng.random() < 0.45:
            _awning(relief, x, f.ground_m - 1.1, w, _jitter(rng, f.accent, 40))


def _door(relief: Relief, f: Facade, x: float, w: float, h: float) -> None:
    kind = {"pointed": "pointed", "round": "round", "segmental": "segmental"}.get(f.window, "flat")
    relief.fill(_opening(kind, x, 0, w + 0.5, h + 0.3), f.trim, 0.15)
    relief.fill(_opening(kind, x, 0.1, w, h), _tone(f.accent, 0.5), -0.35)
    for side in (-1, 1):
        for low, high in ((0.06, 0.3), (0.34, 0.66)):
            relief.rect(
                x + (0.03 if side > 0 else -w / 2 + 0.1), 0.1 + low * h, w / 2 - 0.13, (high - low) * h, f.accent, -0.28
            )
    relief.fill(_opening("flat", x, 0.1 + 0.7 * h, w - 0.2, 0.2 * h), f.glass, -0.4, clip=_opening(kind, x, 0.1, w, h))
    relief.rect(x - w / 2 - 0.4, 0, w + 0.8, 0.14, _tone(f.trim, 0.9), 0.5)


def _column(relief: Relief, f: Facade, x: float, y: float, h: float, radius: float) -> None:
    for i in np.linspace(1, 0.15, 6):  # rounder towards the middle
        relief.rect(
            x - radius * i, y, 2 * radius * i, h, _tone(f.trim, 0.9 + 0.12 * (1 - i)), 0.2 + 0.35 * np.sqrt(1 - i**2)
        )
    relief.rect(x - 1.35 * radius, y + h, 2.7 * radius, 0.28, f.trim, 0.55)
    relief.rect(x - 1.35 * radius, y - 0.02, 2.7 * radius, 0.25, f.trim, 0.5)


GROUNDS: dict[str, Part] = {
    "plain": _ground_plain,
    "rusticated": _ground_rusticated,
    "arcade": _ground_arcade,
    "portico": _ground_portico,
    "portal": _ground_portal,
    "shop": _ground_shop,
}


# ornaments: what makes a building this one


def _diaper(relief: Relief, f: Facade, rng: Generator) -> None:
    """A lattice of another colour laid into the wall."""
    step, ink = rng.uniform(1.0, 2.2), _tone(f.wall, _pick(rng, (0.6, 1.3)))
    box = _opening("flat", f.width_m / 2, f.ground_m, f.width_m, f.eaves_m - f.ground_m)
    for slope in (-1, 1):
        for x in np.arange(-f.eaves_m, f.width_m + f.eaves_m, step):
            a, b, side = np.array([x, 0.0]), np.array([x + slope * f.eaves_m, f.eaves_m]), np.array([0.1, 0.0])
            relief.fill([a - side, a + side, b + side, b - side], ink, 0.0, clip=box)


def _timber(relief: Relief, f: Facade, rng: Generator) -> None:
    """Posts, rails and braces; the pattern of braces is the building's own."""
    braces = [_pick(rng, ("/", "\\", "x", "v", "none", "|")) for _ in range(3)]
    for floor in range(f.floors):
        y = f.ground_m + floor * f.floor_m
        for rail in (0, 0.26 * f.floor_m, f.floor_m - 0.25):
            relief.rect(0, y + rail, f.width_m, 0.24, f.trim, 0.06)
        for post in range(2 * f.bays + 1):
            x = post * f.bay_m / 2 if post % 2 == 0 else None
            if x is not None:
                relief.rect(min(max(x - 0.13, 0), f.width_m - 0.26), y, 0.26, f.floor_m, f.trim, 0.06)
        for bay in range(f.bays):
            _brace(relief, f, braces[(bay + floor) % 3], bay * f.bay_m, y, f.bay_m, 0.26 * f.floor_m)


def _brace(relief: Relief, f: Facade, kind: str, x: float, y: float, w: float, h: float) -> None:
    up, down = np.array([(x, y), (x + w, y + h)]), np.array([(x, y + h), (x + w, y)])
    lines = {
        "/": [up], "\\": [down], "x": [up, down], "none": [],
        "v": [np.array([(x, y + h), (x + w / 2, y), (x + w, y + h)])],
        "|": [np.array([(x + k * w, y), (x + k * w, y + h)]) for k in (0.25, 0.5, 0.75)],
    }[kind]  # fmt: skip
    for line in lines:
        relief.stroke(line, 0.18, f.trim, 0.05)


def _bands(relief: Relief, f: Facade, rng: Generator) -> None:
    step, ink = rng.uniform(0.7, 1.8), _pick(rng, (f.trim, _tone(f.wall, 0.65), f.accent))
    for y in np.arange(f.ground_m, f.eaves_m, step):
        relief.rect(0, y, f.width_m, rng.uniform(0.14, 0.3), ink, 0.03)


def _pilasters(relief: Relief, f: Facade, rng: Generator) -> None:
    w = rng.uniform(0.35, 0.6)
    for bay in range(f.bays + 1):
        x = min(max(bay * f.bay_m, w / 2), f.width_m - w / 2)
        relief.rect(x - w / 2, f.ground_m, w, f.eaves_m - f.ground_m, f.trim, 0.2)
        relief.rect(x - w / 8, f.ground_m + 0.5, w / 4, f.eaves_m - f.ground_m - 1.2, _tone(f.trim, 0.86), 0.12)
        for y in (f.ground_m, f.eaves_m - 0.6):
            relief.rect(x - 0.65 * w, y, 1.3 * w, 0.35, f.trim, 0.3)


def _tilework(relief: Relief, f: Facade, rng: Generator) -> None:
    """Bands of painted tiles between the floors."""
    tiles = _azulejo(rng, relief.cover.shape, f.accent)
    for floor in range(f.floors):
        relief.rect(0.1, f.ground_m + floor * f.floor_m + 0.05, f.width_m - 0.2, 0.2 * f.floor_m, tiles, 0.02)


def _fins(relief: Relief, f: Facade, rng: Generator) -> None:
    step = f.bay_m / int(rng.integers(2, 5))
    ink = _pick(rng, (f.trim, f.accent, _tone(f.wall, 0.7)))
    for x in np.arange(0, f.width_m + 0.01, step):
        relief.rect(x - 0.09, f.ground_m, 0.18, f.eaves_m - f.ground_m, ink, 0.4)


def _quoins(relief: Relief, f: Facade, rng: Generator) -> None:
    high = rng.uniform(0.4, 0.6)
    for i, y in enumerate(np.arange(f.ground_m, f.eaves_m - high, high)):
        w = 0.75 if i % 2 else 0.45
        for x in (-0.04, f.width_m - w + 0.04):
            relief.rect(x, y + 0.03, w, high - 0.06, f.trim, 0.1)


def _frieze(relief: Relief, f: Facade, rng: Generator) -> None:
    """A carved band under the cornice: one motif, repeated."""
    y, h = f.eaves_m - 0.95, 0.6
    relief.rect(0, y, f.width_m, h, _tone(f.trim, 0.92), 0.06)
    motif, step, ink = int(rng.integers(4)), rng.uniform(0.6, 1.2), _pick(rng, (f.accent, _tone(f.trim, 0.7), f.wall))
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


def _medallion(relief: Relief, f: Facade, rng: Generator, x: float, y: float, radius: float) -> None:
    """A round relief: rings and petals."""
    relief.disc(x, y, radius, f.trim, 0.3)
    relief.disc(x, y, 0.82 * radius, _tone(_pick(rng, (f.trim, f.accent)), 0.85), 0.1)
    petals, long, centre = int(rng.integers(4, 13)), rng.uniform(0.5, 0.78), np.array([x, y])
    for angle in np.linspace(0, 2 * np.pi, petals, endpoint=False):
        tip = np.array([np.cos(angle), np.sin(angle)]) * radius * long
        side = np.array([-tip[1], tip[0]]) * rng.uniform(0.2, 0.3)
        relief.fill(np.array([0 * tip, tip * 0.6 + side, tip, tip * 0.6 - side]) + centre, f.trim, 0.26)
    relief.disc(x, y, 0.2 * radius, _tone(f.trim, 0.9), 0.35)


def _medallions(relief: Relief, f: Facade, rng: Generator) -> None:
    bay = _blank_bay(f) or 0
    for floor in range(f.floors):
        y = f.ground_m + (floor + 0.5) * f.floor_m
        _medallion(relief, f, rng, (bay + 0.5) * f.bay_m, y, min(0.36 * f.bay_m, 0.36 * f.floor_m))


def _niches(relief: Relief, f: Facade, rng: Generator) -> None:
    """Statues in niches, in the bay without windows."""
    bay = _blank_bay(f) or 0
    for floor in range(f.floors):
        x, y = (bay + 0.5) * f.bay_m, f.ground_m + floor * f.floor_m + 0.6
        h = 0.72 * f.floor_m
        relief.fill(_opening("round", x, y - 0.1, 1.5, h + 0.3), f.trim, 0.12)
        relief.fill(_opening("round", x, y, 1.1, h), _tone(f.wall, 0.55), -0.4)
        stone = _tone(f.trim, 0.97)
        relief.rect(x - 0.35, y, 0.7, 0.25, stone, 0.1)
        lean = rng.uniform(-0.12, 0.12)
        relief.fill(
            [(x - 0.3, y + 0.2), (x + 0.3, y + 0.2), (x + 0.18 + lean, y + 0.66 * h), (x - 0.18 + lean, y + 0.66 * h)],
            stone,
            0.1,
        )
        relief.disc(x + lean, y + 0.76 * h, 0.15, stone, 0.15)
        arm = _pick(rng, (-1, 1))
        relief.stroke(
            [(x + lean, y + 0.6 * h), (x + lean + arm * 0.38, y + rng.uniform(0.4, 0.8) * h)], 0.13, stone, 0.15
        )


def _rose(relief: Relief, f: Facade, rng: Generator) -> None:
    """A rose window over the middle of the front."""
    x, radius = f.width_m / 2, min(0.2 * f.width_m, 0.6 * f.floor_m, 2.4)
    y, spokes = f.eaves_m - radius - 0.7, int(rng.integers(6, 15))
    relief.disc(x, y, radius + 0.35, f.trim, 0.25)
    relief.disc(x, y, radius, f.glass, -0.3)
    hues = [_jitter(rng, f.accent, 45) for _ in range(spokes)]
    for i, angle in enumerate(np.linspace(0, 2 * np.pi, spokes, endpoint=False)):
        reach = np.array([np.cos(angle), np.sin(angle)])
        centre = reach * 0.7 * radius + (x, y)
        relief.disc(centre[0], centre[1], 0.22 * radius, _tone(hues[i], 1.2), -0.3)
        relief.stroke(np.array([(x, y), reach * radius + (x, y)]), 0.1, f.trim, 0.0)
    relief.disc(x, y, 0.3 * radius, f.trim, 0.0)
    relief.disc(x, y, 0.2 * radius, _tone(f.accent, 1.3), -0.2)


def _clock(relief: Relief, f: Facade, rng: Generator) -> None:
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


def _shutters(relief: Relief, f: Facade, rng: Generator) -> None:
    """Louvred shutters beside the windows, a few of them closed."""
    blank = _blank_bay(f)
    w, h = f.bay_m * f.fullness[0], f.floor_m * f.fullness[1]
    leaf = min(w / 2, (f.bay_m - w) / 2 - 0.06)
    for floor in range(f.floors - (f.floors > 1 and f.top_window == "oculus")):
        for bay in range(f.bays):
            if bay == blank:
                continue
            x, y = (bay + 0.5) * f.bay_m, f.ground_m + (floor + 0.28) * f.floor_m
            closed = rng.random() < 0.12
            for side in (-1, 1):
                left = x + (side - 1) * w / 4 if closed else x + side * (w / 2 + leaf / 2 + 0.02) - leaf / 2
                width = w / 2 if closed else leaf
                relief.rect(left, y, width, h * 0.88, _tone(f.accent, 0.8), 0.1)
                for v in np.arange(y + 0.1, y + h * 0.88 - 0.1, 0.16):
                    relief.rect(left + 0.07, v, width - 0.14, 0.09, _tone(f.accent, 1.2), 0.13)


def _balconies(relief: Relief, f: Facade, rng: Generator) -> None:
    """Slabs with railings: under every window of some floors, or along the whole floor."""
    iron = _pick(rng, ((45, 45, 48), f.trim, f.accent))
    whole = rng.random() < 0.4
    for floor in range(f.floors):
        if rng.random() < 0.35 and floor:
            continue
        y = f.ground_m + (floor + 0.2) * f.floor_m
        spans = [(0.2, f.width_m - 0.4)] if whole else [((b + 0.12) * f.bay_m, 0.76 * f.bay_m) for b in range(f.bays)]
        for x, w in spans:
            relief.rect(x, y - 0.18, w, 0.2, f.trim, 0.8)
            for u in np.arange(x + 0.05, x + w, 0.19):
                relief.rect(u, y, 0.06, 0.95, iron, 0.75)
            relief.rect(x, y + 0.92, w, 0.09, iron, 0.8)


def _boxes(relief: Relief, f: Facade, rng: Generator) -> None:
    """Flowers under the windows."""
    bloom = _pick(rng, _palette("c8324a d9577a e0b23a b04fa0 e06a3a"))
    for floor in range(f.floors):
        for bay in range(f.bays):
            if rng.random() < 0.35:
                continue
            x, y, w = (bay + 0.5) * f.bay_m, f.ground_m + (floor + 0.28) * f.floor_m, f.bay_m * f.fullness[0]
            relief.rect(x - w / 2, y - 0.22, w, 0.24, (52, 72, 98), 0.35)
            for _ in range(int(24 * w)):
                u, v = x + rng.uniform(-0.55, 0.55) * w, y + rng.normal(0.08, 0.1)
                relief.disc(
                    u, v, rng.uniform(0.05, 0.11), bloom if rng.random() < 0.4 else _jitter(rng, (50, 110, 60), 14), 0.4
                )


def _awnings(relief: Relief, f: Facade, rng: Generator) -> None:
    w = f.bay_m * f.fullness[0] + 0.5
    for floor in range(f.floors):
        for bay in range(f.bays):
            if rng.random() < 0.5:
                y = f.ground_m + (floor + 0.28 + f.fullness[1] * 0.75) * f.floor_m
                _awning(relief, (bay + 0.5) * f.bay_m - w / 2, y, w, f.accent)


def _awning(relief: Relief, x: float, y: float, w: float, colour: Colour) -> None:
    stripes = max(int(w / 0.35), 3)
    for i in range(stripes):
        a, b = x + w * i / stripes, x + w * (i + 1) / stripes
        ink = colour if i % 2 else (224, 232, 236)
        relief.fill([(a - 0.08, y - 0.75), (b - 0.08, y - 0.75), (b, y), (a, y)], ink, 0.9)
        relief.fill(
            _ellipse((a + b) / 2 - 0.08, y - 0.75, (b - a) / 2, 0.14, np.pi, 2 * np.pi, 8), _tone(ink, 0.85), 0.95
        )


def _laundry(relief: Relief, f: Facade, rng: Generator) -> None:
    for floor in range(f.floors):
        y, x = f.ground_m + (floor + 0.2) * f.floor_m, rng.uniform(0, 0.5) * f.width_m
        end = x + rng.uniform(0.25, 0.5) * f.width_m
        relief.rect(x, y, end - x, 0.04, (60, 60, 60), 0.3)
        while x < end - 0.8:
            w, h = rng.uniform(0.35, 0.8), rng.uniform(0.4, 1.0)
            relief.rect(x, y - h, w, h, _jitter(rng, (190, 180, 185), 45), 0.3)
            x += w + rng.uniform(0.02, 0.3)


def _flags(relief: Relief, f: Facade, rng: Generator) -> None:
    for _ in range(int(rng.integers(1, 4))):
        x, y = (int(rng.integers(1, f.bays)) if f.bays > 1 else 0.5) * f.bay_m, f.ground_m + 0.8 * f.floor_m
        hues = [_jitter(rng, f.accent, 60) for _ in range(3)]
        for i, hue in enumerate(hues):
            relief.rect(x - 0.45 + 0.3 * i, y - 2.4, 0.3, 2.9, hue, 0.5)
        relief.rect(x - 0.6, y + 0.45, 1.2, 0.1, (50, 60, 70), 0.6)


def _sign(relief: Relief, f: Facade, rng: Generator) -> None:
    """A name across the front, or hanging down its side."""
    ink, ground = (228, 238, 240), _tone(f.accent, 0.75)
    if rng.random() < 0.6:
        w = rng.uniform(0.45, 0.85) * f.width_m
        _lettering(relief, rng, (f.width_m - w) / 2, f.ground_m - 0.1, w, 0.85, ground, ink)
    else:
        x, y = rng.uniform(0.05, 0.9) * f.width_m, f.ground_m + 0.5
        h = min(0.7 * (f.eaves_m - y), 6.0)
        relief.rect(x, y, 0.9, h, ground, 0.6)
        for v in np.arange(y + 0.2, y + h - 0.5, 0.75):
            _letter(relief, rng, x + 0.25, v, 0.4, 0.5, ink, 0.62)


def _lettering(
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
    """A letter of no alphabet: strokes between the corners of a box."""
    nodes = np.array([(0, 0), (1, 0), (0, 0.5), (1, 0.5), (0, 1), (1, 1), (0.5, 1), (0.5, 0)]) * (w, h) + (x, y)
    path = nodes[rng.choice(len(nodes), 4, replace=False)]
    relief.stroke(path, 0.2 * w, ink, height_m)


def _graffiti(relief: Relief, f: Facade, rng: Generator) -> None:
    for _ in range(int(rng.integers(2, 5))):
        x, y = rng.uniform(0.1, 0.7) * f.width_m, rng.uniform(0.5, 1.6)
        t = np.linspace(0, 1, 26)
        swing = sum(rng.normal(0, 0.7) / k * np.sin(2 * np.pi * k * t + rng.uniform(0, 6)) for k in range(1, 5))
        path = np.stack([x + rng.uniform(1.5, 3.5) * t, np.clip(y + swing, 0.2, f.ground_m - 0.4)], 1)
        hue = _jitter(rng, _pick(rng, _palette("e0417a 3aa0d8 f0d040 50c060 f08030 8050d0")), 14)
        relief.stroke(path, 0.3, (30, 28, 32), 0.0)
        relief.stroke(path, 0.18, hue, 0.0)


def _mural(relief: Relief, f: Facade, rng: Generator) -> None:
    """A painted wall: shapes in a few colours, over the bay without windows and the wall beside it."""
    bay = _blank_bay(f) or 0
    x, y, w = bay * f.bay_m + 0.15, f.ground_m + 0.2, f.bay_m - 0.3
    h = f.eaves_m - y - 0.4
    frame = _opening("flat", x + w / 2, y, w, h)
    hues = [_jitter(rng, f.accent, 55) for _ in range(3)] + [_jitter(rng, (200, 215, 225), 25)]
    relief.fill(frame, hues[3], 0.0)
    for _ in range(16):
        u, v, size = x + rng.uniform(0, w), y + rng.uniform(0, h), rng.uniform(0.2, 0.5) * w
        corners = int(_pick(rng, (3, 4, 5, 24)))
        turn = rng.uniform(0, 6)
        relief.fill(
            _ellipse(u, v, size, size * rng.uniform(0.6, 1.6), turn, turn + 2 * np.pi, corners + 1),
            _pick(rng, tuple(hues)),
            0.0,
            clip=frame,
        )


def _pipes(relief: Relief, f: Facade, rng: Generator) -> None:
    """Drainpipes and air conditioners."""
    for x in rng.uniform(0.02, 0.98, 2) * f.width_m:
        relief.rect(x, 0, 0.14, f.eaves_m, _tone(f.wall, 0.5), 0.2)
    for _ in range(int(rng.integers(1, 6))):
        bay, floor = int(rng.integers(f.bays)), int(rng.integers(f.floors))
        x, y = bay * f.bay_m + 0.05, f.ground_m + (floor + 0.1) * f.floor_m
        relief.rect(x, y, 0.9, 0.6, (205, 208, 208), 0.5)
        relief.disc(x + 0.3, y + 0.3, 0.22, (120, 122, 122), 0.45)


def _ivy(relief: Relief, f: Facade, rng: Generator) -> None:
    """Leaves that climb from one corner."""
    right = rng.random() < 0.5
    span, reach = rng.uniform(0.15, 0.4) * f.width_m, rng.uniform(0.6, 1.0) * f.eaves_m
    for _ in range(int(55 * span * reach / 4)):
        y = reach * rng.random() ** 1.3
        x = span * (1 - y / reach) ** 0.5 * rng.random() ** 0.8
        leaf = _jitter(rng, (48, 98, 62), 13)
        relief.disc(f.width_m - x if right else x, y, rng.uniform(0.1, 0.22), leaf, rng.uniform(0.1, 0.3))


def _weather(relief: Relief, rng: Generator) -> None:
    """Dirt under ledges and damp at the foot, so that large flat parts are not quite flat."""
    drip = cv2.blur(relief.height, (3, 61), anchor=(1, 60)) - relief.height
    dirt = 1 - 0.22 * np.clip(drip, 0, 1) * (0.6 + 0.4 * _noise(rng, relief.cover.shape, 16, 2))
    foot = np.linspace(0, 1, len(dirt))[:, None] ** 12
    light = (dirt - 0.16 * foot)[..., None].astype(np.float32)
    relief.colour[:] = np.clip(relief.colour * light, 0, 255)


UNDER_WINDOWS: dict[str, Part] = {
    "diaper": _diaper,
    "timber": _timber,
    "bands": _bands,
    "pilasters": _pilasters,
    "tilework": _tilework,
    "fins": _fins,
}
OVER_WINDOWS: dict[str, Part] = {
    "quoins": _quoins,
    "pipes": _pipes,
    "frieze": _frieze,
    "medallion": _medallions,
    "niches": _niches,
    "rose": _rose,
    "clock": _clock,
    "mural": _mural,
    "shutters": _shutters,
    "balconies": _balconies,
    "boxes": _boxes,
    "awnings": _awnings,
    "laundry": _laundry,
    "sign": _sign,
    "graffiti": _graffiti,
    "flags": _flags,
    "ivy": _ivy,
}


# ------------------------------------------------------------------------------------------------ taking pictures

SKIES: dict[str, tuple[Colour, Colour, float]] = {  # zenith, horizon, clouds
    "clear": ((214, 156, 92), (240, 224, 200), 0.3),
    "cloudy": ((212, 172, 126), (236, 228, 216), 0.9),
    "overcast": ((208, 200, 192), (232, 228, 224), 0.5),
    "evening": ((176, 134, 118), (160, 200, 246), 0.5),
    "haze": ((228, 206, 180), (238, 234, 228), 0.15),
}
SUPERSAMPLING = 2


def render(scene: Scene, view: View) -> Array:
    """The photograph, (H, W, 3) uint8, BGR."""
    rng = np.random.default_rng(view.seed)
    size = view.size[0] * SUPERSAMPLING, view.size[1] * SUPERSAMPLING
    camera = _camera(scene, view, size)  # (3, 4)
    backdrop = _street(_sky(rng, view), _camera(scene, view, view.size), scene)
    picture = cv2.resize(backdrop, size[::-1])
    for layer, plane in _planes(scene, view):
        picture = _over(picture, _seen(layer, plane, camera, size))
    picture = _over(picture, _obstruction(view, camera, size))
    return _develop(rng, cv2.resize(picture, view.size[::-1], interpolation=cv2.INTER_AREA), view)


def silhouette(scene: Scene, view: View) -> Array:
    """Where the building itself is seen, (H, W) bool: its front, less what stands before it."""
    camera = _camera(scene, view, view.size)
    relief = _drawn(scene.main)
    front = _seen(np.dstack([relief.colour, relief.cover]), _front(relief, 0.0), camera, view.size)[..., 3]
    return (front > 127) & (_obstruction(view, camera, view.size)[..., 3] < 128)


def _camera(scene: Scene, view: View, size: tuple[int, int]) -> Array:
    """World metres to pixels, (3, 4): looks at the aim from the yaw, with the focal length that gives the fill."""
    facade = scene.main
    yaw, away = np.radians(view.yaw_deg), view.distance * np.hypot(facade.width_m, facade.height_m)
    middle = np.array([facade.width_m / 2, 0.0, 0.0])
    eye = middle + np.array([away * np.sin(yaw), view.eye_m, away * np.cos(yaw)])
    aim = np.array([view.aim[0] * facade.width_m, view.aim[1] * facade.height_m, 0.0])
    forward = (aim - eye) / np.linalg.norm(aim - eye)
    right = np.cross(forward, [0, 1, 0]) / np.linalg.norm(np.cross(forward, [0, 1, 0]))
    roll = np.radians(view.roll_deg)
    down = np.cross(forward, right)
    rotation = np.stack(
        [np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right, forward]
    )
    extrinsic = np.hstack([rotation, -rotation @ eye[:, None]])
    x, y = _project(extrinsic, _corners(facade))
    focal = view.fill * min(size[1] / np.ptp(x), size[0] / np.ptp(y))
    camera: Array = np.array([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1]]) @ extrinsic
    return camera


def _corners(facade: Facade) -> Array:
    w, h = facade.width_m, facade.height_m
    return np.array([(0, 0, 0), (w, 0, 0), (w, h, 0), (0, h, 0)], float)


def _project(camera: Array, points: Array) -> Array:
    """(N, 3) metres -> (2, N) px."""
    u, v, w = camera @ np.vstack([points.T, np.ones(len(points))])
    return np.stack([u / w, v / w])


def _front(relief: Relief, x_m: float) -> Array:
    """Canvas pixels to world homogeneous metres, (4, 3), of a relief that faces the street, its left edge at x."""
    k = 1 / CANVAS_PX_PER_M
    return np.array([[k, 0, x_m - relief.margin_m], [0, -k, relief.top_m], [0, 0, 0], [0, 0, 1]])


def _planes(scene: Scene, view: View) -> Iterable[tuple[Array, Array]]:
    """What stands in the scene, back to front: (canvas (H, W, 4) uint8, canvas to world (4, 3))."""
    yield _skyline(scene.seed), np.array([[0.25, 0, -128.0], [0, -0.25, 27.0], [0, 0, -55.0], [0, 0, 1]])
    main = scene.main
    for house, side, x in ((scene.left, -1, 0.0), (scene.right, 1, main.width_m)):
        if house is None:
            yield _side_wall(main, scene.depth_m, side, view), _flank(main, scene.depth_m, x)
    for house, x in ((scene.left, -scene.left.width_m if scene.left else 0.0), (scene.right, main.width_m)):
        if house is not None:
            yield _sunlit(house, view), _front(_drawn(house), x)
    yield _sunlit(main, view), _front(_drawn(main), 0.0)


def _flank(facade: Facade, depth_m: float, x_m: float) -> Array:
    """Canvas pixels to world of a wall that runs back from the street at x, (4, 3)."""
    k = 1 / CANVAS_PX_PER_M
    return np.array([[0, 0, x_m], [0, -k, facade.eaves_m], [k, 0, -depth_m], [0, 0, 1]])


def _side_wall(facade: Facade, depth_m: float, side: int, view: View) -> Array:
    """The bare flank of a free-standing building, (H, W, 4), lit or in shade."""
    wall = _bare_wall(facade, depth_m)
    lit = 0.72 + 0.28 * view.sunlight * np.sign(view.sun_deg * side) - 0.1
    shaded = np.clip(wall[..., :3] * lit, 0, 255).astype(np.uint8)
    return np.dstack([shaded, wall[..., 3]])


@lru_cache(maxsize=6)
def _bare_wall(facade: Facade, depth_m: float) -> Array:
    rng = np.random.default_rng((*facade.seed, 9))
    relief = Relief(depth_m, facade.eaves_m, margin_m=0.0)
    relief.rect(0, 0, depth_m, facade.eaves_m, MATERIALS[facade.material](rng, relief.cover.shape, facade.wall))
    for floor in range(facade.floors):
        for x in np.arange(1.8, depth_m - 1.0, 3.4):
            if rng.random() < 0.6:
                y = facade.ground_m + (floor + 0.28) * facade.floor_m
                _window(relief, facade, rng, x, y, 1.0, 0.5 * facade.floor_m, "flat")
    return np.dstack([relief.colour, relief.cover])


@lru_cache(maxsize=6)
def _skyline(seed: tuple[int, ...]) -> Array:
    """Far roofs and trees, (H, W, 4), 4 px a metre."""
    rng = np.random.default_rng(seed)
    canvas = np.zeros((108, 1024, 4), np.uint8)
    for x in range(0, 1024, 26):
        top, wide, tone = int(108 - 4 * rng.uniform(5, 15)), int(rng.uniform(20, 44)), rng.uniform(150, 195)
        cv2.rectangle(canvas, (x, top), (x + wide, 108), (tone + 12, tone + 4, tone, 255), -1)
        if rng.random() < 0.5:
            roof = np.array([(x, top), (x + wide, top), (x + wide // 2, top - 14)])
            cv2.fillPoly(canvas, [roof], (tone - 14, tone - 12, tone - 4, 255))
        for wx in range(x + 4, x + wide - 3, 8):
            for wy in range(top + 6, 104, 12):
                cv2.rectangle(canvas, (wx, wy), (wx + 3, wy + 5), (tone - 26, tone - 34, tone - 40, 255), -1)
    for _ in range(90):
        x, radius, tone = int(rng.integers(0, 1024)), int(rng.integers(6, 15)), rng.uniform(0.8, 1.15)
        cv2.circle(canvas, (x, 108 - radius // 2), radius, (*_tone((112, 140, 118), tone), 255), -1)
    return canvas


def _sunlit(facade: Facade, view: View) -> Array:
    """A front under the view's sun, (H, W, 4): slopes towards it brighter, shadows cast by what stands out."""
    relief = _drawn(facade)
    turn = np.radians(view.sun_deg)
    toward = np.array([np.sin(turn), -np.cos(turn)], np.float32)  # canvas direction of the sun, y down
    height = cv2.resize(relief.height, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)  # light needs half of it
    px_per_m = CANVAS_PX_PER_M / 2
    slope = cv2.Sobel(height, -1, 1, 0, scale=0.125) * toward[0] + cv2.Sobel(height, -1, 0, 1, scale=0.125) * toward[1]
    facing = np.clip(-slope * px_per_m / 4, -0.5, 0.6) * (0.35 + 0.65 * view.sunlight)
    shadow = np.zeros_like(height)
    for step in range(1, 15):
        shift = np.array([[1, 0, -toward[0] * step], [0, 1, -toward[1] * step]])
        blocker = cv2.warpAffine(height, shift, height.shape[::-1])
        shadow[blocker - 0.9 * step / px_per_m > height + 0.02] = 1
    depth = 0.12 + 0.4 * view.sunlight
    light = (1 + facing) * (1 - depth * cv2.blur(shadow, (2, 2))) * (0.98 + 0.16 * view.sunlight)
    light = cv2.resize(light, relief.height.shape[::-1])[..., None]
    return np.dstack([np.minimum(relief.colour * light, 255).astype(np.uint8), relief.cover])


def _seen(canvas: Array, plane: Array, camera: Array, size: tuple[int, int]) -> Array:
    """A flat canvas as the camera sees it, (H, W, 4) uint8, colour multiplied by coverage."""
    canvas, plane = _shrunk(canvas, plane, camera)
    x, y, front = _on_plane(camera @ plane, size)
    x[~front] = -9e3  # outside the canvas
    solid = canvas.copy()
    solid[..., :3] = canvas[..., :3] * (canvas[..., 3:] / np.float32(255))
    return cv2.remap(solid, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, 0))


def _shrunk(canvas: Array, plane: Array, camera: Array) -> tuple[Array, Array]:
    """The canvas averaged down to about the picture's resolution where it is seen largest: no aliasing."""
    h, w = canvas.shape[:2]
    corners = (plane @ np.array([(0, 0, 1), (w, 0, 1), (w, h, 1), (0, h, 1)]).T)[:3].T
    u, v = _project(camera, corners)
    in_front = (camera @ np.vstack([corners.T, np.ones(4)]))[2].min() > 0.5
    span = max(np.hypot(u[0] - u[3], v[0] - v[3]), np.hypot(u[1] - u[2], v[1] - v[2])) / h
    factor = min(1.25 * span, 1.0) if in_front else 1.0
    small = cv2.resize(canvas, (max(round(w * factor), 2), max(round(h * factor), 2)), interpolation=cv2.INTER_AREA)
    return small, plane @ np.diag([w / small.shape[1], h / small.shape[0], 1])


def _on_plane(to_pixels: Array, size: tuple[int, int]) -> tuple[Array, Array, Array]:
    """For every pixel the plane coordinates it shows: x, y (H, W), and whether they are before the camera."""
    inverse = np.linalg.inv(to_pixels).astype(np.float32)
    u, v = np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32)[:, None]
    x, y, w = (inverse[i, 0] * u + (inverse[i, 1] * v + inverse[i, 2]) for i in range(3))
    front = w > 1e-7
    w[~front] = 1
    return x / w, y / w, front


def _over(picture: Array, layer: Array) -> Array:
    """Composites a premultiplied (H, W, 4) layer on a (H, W, 3) picture."""
    rows, cols = np.flatnonzero(layer[..., 3].any(1)), np.flatnonzero(layer[..., 3].any(0))
    if rows.size:
        box = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
        picture[box] = picture[box] * ((255 - layer[box][..., 3:]) / np.float32(255)) + layer[box][..., :3]
    return picture


def _sky(rng: Generator, view: View) -> Array:
    size = view.size
    zenith, horizon, clouds = SKIES[view.sky]
    t = np.linspace(0, 1, size[0], dtype=np.float32)[:, None, None] ** 0.8
    sky: Array = np.array(zenith, np.float32) * (1 - t) + np.array(horizon, np.float32) * t
    cover = _noise(rng, (size[0] // 4 + 1, size[1] // 8 + 1), size[1] / 40, 4)
    cover = cv2.resize(np.clip(cover * 0.5, 0, 1), size[::-1])[..., None] * clouds
    sky = sky * (1 - cover) + np.float32(240) * cover
    return sky


def _street(picture: Array, camera: Array, scene: Scene) -> Array:
    """The ground: roadway, kerb and pavement, fading into the distance."""
    rng = np.random.default_rng(scene.seed)
    size = picture.shape[:2]
    plane = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]], float)  # (x, z) metres
    x, z, front = _on_plane(camera @ plane, size)
    kerb = rng.uniform(2.2, 4.5)
    slab = rng.uniform(0.6, 1.3)
    road, paved = np.array(scene.street, np.float32), np.array(scene.pavement, np.float32)
    ground = np.where(((z > kerb) | (z < -30))[..., None], road, paved)
    joints = ((x % slab < 0.05) | (z % slab < 0.05)) & (z < kerb)
    grain = cv2.remap(
        _noise(rng, (512, 512), 10, 4),
        (x * 24 % 512).astype(np.float32),
        (z * 24 % 512).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    near = np.exp(-np.hypot(x - scene.main.width_m / 2, z) / 60)
    light = (1 + 0.06 * grain * near) * np.where(joints, 1 - 0.2 * near, 1) * np.where(abs(z - kerb) < 0.12, 0.7, 1)
    light *= 1 - 0.4 * np.exp(-np.clip(z, 0, None) / 0.8) * (z > 0)  # the shade at the foot of the wall
    marks = (abs(z - kerb - 4) < 0.08) & (x % 4 < 2.2)
    ground = np.where(marks[..., None], 205, ground * light[..., None])
    far = np.exp(-np.clip(-z - 25, 0, None) / 80)[..., None]
    return np.where(front[..., None], ground * far + 208 * (1 - far), picture).astype(np.float32)


def _obstruction(view: View, camera: Array, size: tuple[int, int]) -> Array:
    """Everything between camera and façade, (H, W, 4) uint8, premultiplied."""
    layer: Array = np.zeros((*size, 4), np.float32)
    for occluder in sorted(view.occluders, key=lambda o: o.z_m):
        canvas, metres_per_px = SPRITES[occluder.kind](np.random.default_rng(occluder.seed))
        h, w = canvas.shape[:2]
        plane = np.array(
            [
                [metres_per_px, 0, occluder.x_m - w / 2 * metres_per_px],
                [0, -metres_per_px, h * metres_per_px],
                [0, 0, occluder.z_m],
                [0, 0, 1],
            ]
        )
        seen = _seen(canvas, plane, camera, size).astype(np.float32)
        layer = layer * (1 - seen[..., 3:] / 255) + seen
    return layer.astype(np.uint8)


def _sprite(height_px: int, width_px: int) -> Array:
    return np.zeros((height_px, width_px, 4), np.uint8)


def _person(rng: Generator) -> tuple[Array, float]:
    canvas = _sprite(180, 80)
    coat, legs, skin = (_jitter(rng, c, 45) for c in ((110, 90, 100), (80, 70, 60), (130, 160, 205)))
    stride = int(rng.integers(4, 16))
    for side in (-1, 1):
        cv2.line(canvas, (40, 100), (40 + side * stride, 176), (*legs, 255), 13, cv2.LINE_AA)
        cv2.line(
            canvas,
            (40 + side * 14, 50),
            (40 + side * (18 + stride // 3), 96),
            (*_tone(coat, 0.85), 255),
            9,
            cv2.LINE_AA,
        )
    cv2.ellipse(canvas, (40, 70), (18, 36), 0, 0, 360, (*coat, 255), -1, cv2.LINE_AA)
    cv2.circle(canvas, (40, 20), 12, (*skin, 255), -1, cv2.LINE_AA)
    cv2.ellipse(canvas, (40, 15), (12, 9), 0, 180, 360, (*_tone(legs, 0.6), 255), -1, cv2.LINE_AA)
    return canvas, rng.uniform(1.6, 1.9) / 180


def _lamp(rng: Generator) -> tuple[Array, float]:
    canvas = _sprite(300, 60)
    iron = (*_jitter(rng, (58, 62, 56), 8), 255)
    cv2.line(canvas, (30, 300), (30, 46), iron, 5, cv2.LINE_AA)
    cv2.rectangle(canvas, (25, 262), (35, 300), iron, -1)
    cv2.fillPoly(canvas, [np.array([(18, 16), (42, 16), (37, 46), (23, 46)])], (205, 226, 236, 255), cv2.LINE_AA)
    cv2.fillPoly(canvas, [np.array([(14, 17), (46, 17), (30, 2)])], iron, cv2.LINE_AA)
    return canvas, rng.uniform(4.0, 5.2) / 300


def _vehicle(rng: Generator) -> tuple[Array, float]:
    """A car or a van from the side."""
    canvas, van = _sprite(140, 340), rng.random() < 0.3
    paint = _jitter(rng, _pick(rng, _palette("b03028 2f4f80 d8d8d4 303438 c8a030 4f7a5a 8a8f94")), 12)
    cabin = [(20, 8), (296, 8), (326, 66), (20, 66)] if van else [(84, 18), (212, 18), (262, 66), (48, 66)]
    cv2.fillPoly(canvas, [np.array(cabin)], (*_tone(paint, 0.9), 255), cv2.LINE_AA)
    glass = [(236, 18), (288, 18), (312, 60), (236, 60)] if van else [(90, 25), (206, 25), (246, 62), (64, 62)]
    cv2.fillPoly(canvas, [np.array(glass)], (74, 64, 54, 255), cv2.LINE_AA)
    cv2.line(canvas, (150, 20), (150, 64), (*_tone(paint, 0.9), 255), 6)
    cv2.rectangle(canvas, (10, 62), (330, 112), (*paint, 255), -1)
    cv2.rectangle(canvas, (10, 92), (330, 114), (*_tone(paint, 0.7), 255), -1)
    for x in (74, 262):
        cv2.circle(canvas, (x, 112), 27, (34, 34, 36, 255), -1, cv2.LINE_AA)
        cv2.circle(canvas, (x, 112), 13, (150, 150, 150, 255), -1, cv2.LINE_AA)
    return (canvas[:, ::-1] if rng.random() < 0.5 else canvas), (2.1 if van else 1.5) / 140


def _tree(rng: Generator) -> tuple[Array, float]:
    """A trunk and some hundred tufts of leaves, light above, dark below."""
    canvas = _sprite(420, 340)
    leaf = _jitter(rng, _pick(rng, _palette("5c7a3c 6e8544 4a6a40 9a7a36")), 10)
    cv2.line(canvas, (170, 420), (170, 200), (52, 66, 80, 255), 16, cv2.LINE_AA)
    for side in (-1, 1):
        cv2.line(canvas, (170, 290), (170 + side * 70, 190), (52, 66, 80, 255), 8, cv2.LINE_AA)
    for _ in range(320):
        angle, reach = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random())
        x, y = 170 + 130 * reach * np.cos(angle), 150 + 118 * reach * np.sin(angle)
        tone = 1.25 - 0.6 * (y / 270) + rng.normal(0, 0.1)
        cv2.circle(canvas, (int(x), int(y)), int(rng.integers(7, 19)), (*_tone(leaf, tone), 255), -1, cv2.LINE_AA)
    return canvas, rng.uniform(5.5, 8.0) / 420


SPRITES: dict[str, Callable[[Generator], tuple[Array, float]]] = {
    "person": _person,
    "lamp": _lamp,
    "vehicle": _vehicle,
    "tree": _tree,
}


def _develop(rng: Generator, picture: Array, view: View) -> Array:
    """Light, lens and sensor: (H, W, 3) float -> uint8."""
    h, w = picture.shape[:2]
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    strength, direction = view.shade
    across = x * np.cos(np.radians(direction)) + y * np.sin(np.radians(direction))
    light = (1 - strength / (1 + np.exp(-5 * across))) * (1 - 0.1 * (x**2 + y**2)) * view.gain
    balance = np.exp(np.array([-0.5, 0.0, 0.5]) * view.warmth)
    picture = cv2.GaussianBlur(picture, (0, 0), view.blur_px)
    exposed = np.clip(picture * light[..., None] * balance / 255, 0, 1) ** view.gamma * 255
    noise = rng.standard_normal((h, w, 1)) * view.noise + rng.standard_normal((h, w, 3)) * view.noise / 3
    developed: Array = np.clip(exposed + noise + 0.5, 0, 255).astype(np.uint8)
    return developed


# ------------------------------------------------------------------------------------------------ the data set


def write(scenes: SceneSet, data_dir: Path) -> Path:
    """Generates a set in the revisitop layout and returns its folder, DATA_DIR/NAME.

    The pictures go to `jpg/`, the ground truth (`imlist`, `qimlist`, `gnd`) to `gnd_NAME.json` and, the same,
    `gnd_NAME.pkl`. The ground truth is written last, so a folder that has it is complete.
    """
    root = data_dir / scenes.name
    truth_paths = root / f"gnd_{scenes.name}.json", root / f"gnd_{scenes.name}.pkl"
    for path in truth_paths:
        path.unlink(missing_ok=True)
    (root / "jpg").mkdir(parents=True, exist_ok=True)
    sights = [_photograph(scenes, index, root / "jpg") for index in range(scenes.scenes + scenes.distractors)]
    truth = _ground_truth(scenes, sights)
    _replace(truth_paths[1], pickle.dumps(truth, protocol=2))
    _replace(truth_paths[0], json.dumps(truth, indent=1).encode())
    return root


@dataclass(frozen=True)
class Sight:
    """What a picture shows of its building, measured on the picture."""

    name: str
    points: Array  # (GRID, GRID) bool: the points of the façade that are seen
    px_per_m: float
    yaw_deg: float
    share: float  # of the picture
    bbx: tuple[float, float, float, float]  # x1, y1, x2, y2 px


def _photograph(scenes: SceneSet, index: int, folder: Path) -> list[Sight]:
    """Writes every view of a scene; a distractor has one, the last of the views."""
    building = build_scene(scenes.seed, index)
    numbers = range(scenes.views) if index < scenes.scenes else range(1, 2)
    sights = []
    for number in numbers:
        name = f"scene{index:04d}_{number:02d}"
        shot = choose_view(scenes.seed, index, number, scenes.size)
        done, jpeg = cv2.imencode(".jpg", render(building, shot), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        assert done
        (folder / f"{name}.jpg").write_bytes(jpeg.tobytes())
        sights.append(measure(building, shot, name))
    return sights


def measure(scene: Scene, view: View, name: str) -> Sight:
    """Measures a view: the visible points of the façade, its scale, its bounding box."""
    seen = silhouette(scene, view)
    camera, facade = _camera(scene, view, view.size), scene.main
    v, u = np.mgrid[0.5 / GRID : 1 : 1 / GRID, 0.5 / GRID : 1 : 1 / GRID]
    points = np.stack([u.ravel() * facade.width_m, v.ravel() * facade.eaves_m, 0 * u.ravel()], 1)
    x, y = np.floor(_project(camera, points)).astype(int)
    inside = (x >= 0) & (x < view.size[1]) & (y >= 0) & (y < view.size[0])
    inside[inside] = seen[y[inside], x[inside]]
    rows, cols = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    corners = _project(camera, _corners(facade)).T.astype(np.float32)
    box = (cols[0], rows[0], cols[-1] + 1, rows[-1] + 1) if len(rows) else (0, 0, view.size[1], view.size[0])
    return Sight(
        name=name,
        points=inside.reshape(GRID, GRID),
        px_per_m=float(np.sqrt(cv2.contourArea(corners) / (facade.width_m * facade.height_m))),
        yaw_deg=view.yaw_deg,
        share=float(seen.mean()),
        bbx=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
    )


def grade(query: Sight, other: Sight) -> str:
    """How hard it is to recognise the query's building in another view: "easy", "hard" or "junk"."""
    overlap = (query.points & other.points).sum() / max(query.points.sum(), 1)
    zoom = abs(np.log2(query.px_per_m / other.px_per_m))
    turn = abs(query.yaw_deg - other.yaw_deg)
    if overlap < 0.2 or other.share < 0.03:
        return "junk"
    return "easy" if overlap > 0.65 and zoom < 1 and turn < 35 else "hard"


def _ground_truth(scenes: SceneSet, sights: list[list[Sight]]) -> dict[str, Any]:
    database = [sight.name for views in sights[: scenes.scenes] for sight in views[1:]]
    database += [views[0].name for views in sights[scenes.scenes :]]
    order = np.random.default_rng((scenes.seed, len(database))).permutation(len(database))
    imlist = [database[i] for i in order]
    rows = {name: row for row, name in enumerate(imlist)}
    gnd = []
    for query, *others in sights[: scenes.scenes]:
        grades = {rows[other.name]: grade(query, other) for other in others}
        labels = {label: sorted(r for r, g in grades.items() if g == label) for label in ("easy", "hard", "junk")}
        gnd.append({"bbx": list(query.bbx), **labels})
    return {"imlist": imlist, "qimlist": [views[0].name for views in sights[: scenes.scenes]], "gnd": gnd}


def _replace(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)
