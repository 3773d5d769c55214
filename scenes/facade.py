"""Front of one building: its dimensions, materials and parts, chosen from a family."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from cvnet_engine.engine.contract import Array
from scenes.family import FAMILIES
from scenes.palette import Colour, colours, jitter, pick


@dataclass(frozen=True)
class Facade:
    """The front of one building. Hashable, because drawings are cached; `seed` determines the details."""

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
        return self.storey_m(self.floors)

    @property
    def height_m(self) -> float:
        return self.eaves_m + self.roof_m

    @property
    def corners(self) -> Array:
        """(4, 3) metres, starting at the lower left."""
        w, h = self.width_m, self.height_m
        return np.array([(0, 0, 0), (w, 0, 0), (w, h, 0), (0, h, 0)], float)

    @property
    def blank_bay(self) -> int | None:
        """The bay without windows, whose wall has a mural, reliefs or statues."""
        has_one = {"mural", "niches", "medallion"} & set(self.ornaments)
        return self.seed[-2] % self.bays if has_one else None

    def middle_m(self, bay: int) -> float:
        """Return the x of the middle of a bay."""
        return (bay + 0.5) * self.bay_m

    def storey_m(self, floor: float) -> float:
        """Return the y of a floor; floor 0 is the first above the ground floor, fractions lie between floors."""
        return self.ground_m + floor * self.floor_m


def choose_facade(rng: Generator, seed: tuple[int, ...]) -> Facade:
    family = pick(rng, FAMILIES)
    wide = rng.random() < 0.5
    return Facade(
        seed=seed,
        bays=int(rng.integers(5, 8) if wide else rng.integers(3, 6)),
        bay_m=rng.uniform(2.4, 3.6),
        floors=int(rng.integers(1, 4) if wide else rng.integers(2, 5)),
        floor_m=rng.uniform(3.0, 4.2),
        ground_m=rng.uniform(3.6, 5.2),
        roof_m=rng.uniform(3.2, 5.5),
        material=pick(rng, family.materials),
        wall=jitter(rng, pick(rng, colours(family.walls)), 14),
        trim=jitter(rng, pick(rng, colours(family.trims)), 8),
        tile=jitter(rng, pick(rng, colours(family.tiles)), 10),
        accent=jitter(rng, pick(rng, colours(family.accents)), 12),
        glass=jitter(rng, pick(rng, colours("33414d 2b353d 3e4a4c 46545c 2a2f3a")), 6),
        window=pick(rng, family.windows),
        top_window=pick(rng, family.windows),
        hood=pick(rng, family.hoods),
        panes=(int(rng.integers(1, 4)), int(rng.integers(1, 5))),
        fullness=(rng.uniform(0.32, 0.66), rng.uniform(0.48, 0.66)),
        roof=pick(rng, family.roofs),
        ground=pick(rng, family.grounds),
        ornaments=tuple(sorted(rng.choice(sorted(set(family.ornaments)), int(rng.integers(2, 5)), replace=False))),
    )
