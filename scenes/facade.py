"""Front of one building: its dimensions, materials and parts, chosen from a family of buildings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from cvnet_engine.engine.contract import Array
from scenes.materials import Colour, pick, pick_colour

# Kinds of buildings, with their choices of each part. Colours are RGB; a name that is repeated is more frequent.
FAMILIES: tuple[dict[str, str], ...] = (
    {  # palaces and banks
        "materials": "ashlar ashlar stucco",
        "walls": "d9cdb4 c9bfae e0d5c0 bdb3a2 d8c39a c7c4bd",
        "trims": "efe8d8 e6ddca f3efe6",
        "tiles": "5b6672 6d7a73 4f565e",
        "accents": "2f5d50 7a2e2a 2e4a72 8a6d2f",
        "windows": "flat round segmental round",
        "hoods": "pediment lintel arched keystone",
        "roofs": "pediment balustrade mansard dome towers",
        "grounds": "rusticated arcade portico",
        "ornaments": "pilasters frieze medallion niches quoins flags clock balconies",
    },
    {  # merchants' houses and mills
        "materials": "brick brick brick planks",
        "walls": "9c4a36 8a3f33 b0634a a45a3c 7d4a40 b57f5c",
        "trims": "e5dccb d6c7a8 efe9dd c9b18c",
        "tiles": "4a4a50 8a4b38 5d5148",
        "accents": "1f4d3a 22384f 7b2620 c48a2a",
        "windows": "segmental flat round oculus",
        "hoods": "keystone lintel none arched",
        "roofs": "stepped gable scrolled mansard balustrade",
        "grounds": "shop arcade plain rusticated",
        "ornaments": "quoins sign graffiti pipes ivy bands clock shutters diaper",
    },
    {  # churches, colleges
        "materials": "rubble ashlar rubble",
        "walls": "a79f8e b8ab93 8f8a80 c2b59a 9a8f7d",
        "trims": "cfc6b2 ddd3bd b9b1a0",
        "tiles": "4d5560 5f6b5a 6b4d44",
        "accents": "26456b 6b2431 345c3c",
        "windows": "pointed pointed round oculus",
        "hoods": "arched none keystone",
        "roofs": "gable towers crenellated pediment",
        "grounds": "portal arcade plain",
        "ornaments": "rose niches pilasters bands frieze ivy clock flags medallion",
    },
    {  # half-timbered and painted houses
        "materials": "stucco planks stucco brick",
        "walls": "e8dcc0 e3c98f d9a58a c9d0bb b7c4c9 e6b86a",
        "trims": "4b3527 5d3f2c 3a2e2a 6a5140",
        "tiles": "8f4a35 7a3f33 5f4a40",
        "accents": "7c2d26 2f5a45 2d4b6e b5832b",
        "windows": "flat flat segmental",
        "hoods": "none lintel",
        "roofs": "gable gable mansard scrolled",
        "grounds": "shop plain arcade",
        "ornaments": "timber timber shutters boxes sign mural ivy pipes",
    },
    {  # southern houses: plaster, shutters, tiles
        "materials": "stucco azulejo stucco azulejo",
        "walls": "e2a35c d98a63 e9c9a0 d4786a 8fb0b5 c7d3cf e8d27a",
        "trims": "f4ecdc e9dcc3 fbf6ea",
        "tiles": "b0603f a5573a c07850",
        "accents": "2e6b4f 27548a 8a3b2a 3e7d86",
        "windows": "flat round segmental flat",
        "hoods": "lintel none pediment",
        "roofs": "eaves balustrade scrolled towers",
        "grounds": "arcade shop plain",
        "ornaments": "shutters balconies boxes mural tilework sign quoins awnings laundry",
    },
    {  # modern buildings
        "materials": "panels panels brick stucco",
        "walls": "b9bcbb 8f9698 d3cfc6 a87c62 5f6a72 c9b9a0",
        "trims": "e8e8e4 3b4046 c98b3a d7d2c8",
        "tiles": "5a6066 474c52",
        "accents": "d1502f 1f7a8c e0a526 4b6b3c",
        "windows": "flat flat flat oculus",
        "hoods": "none lintel",
        "roofs": "balustrade fins eaves stepped",
        "grounds": "shop plain portico",
        "ornaments": "mural balconies fins graffiti sign bands pipes awnings diaper",
    },
)


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

    def choose(part: str) -> str:
        chosen: str = pick(rng, family[part].split())
        return chosen

    wide = rng.random() < 0.5
    return Facade(
        seed=seed,
        bays=int(rng.integers(5, 8) if wide else rng.integers(3, 6)),
        bay_m=rng.uniform(2.4, 3.6),
        floors=int(rng.integers(1, 4) if wide else rng.integers(2, 5)),
        floor_m=rng.uniform(3.0, 4.2),
        ground_m=rng.uniform(3.6, 5.2),
        roof_m=rng.uniform(3.2, 5.5),
        material=choose("materials"),
        wall=pick_colour(rng, family["walls"], 14),
        trim=pick_colour(rng, family["trims"], 8),
        tile=pick_colour(rng, family["tiles"], 10),
        accent=pick_colour(rng, family["accents"], 12),
        glass=pick_colour(rng, "33414d 2b353d 3e4a4c 46545c 2a2f3a", 6),
        window=choose("windows"),
        top_window=choose("windows"),
        hood=choose("hoods"),
        panes=(int(rng.integers(1, 4)), int(rng.integers(1, 5))),
        fullness=(rng.uniform(0.32, 0.66), rng.uniform(0.48, 0.66)),
        roof=choose("roofs"),
        ground=choose("grounds"),
        ornaments=tuple(
            sorted(rng.choice(sorted(set(family["ornaments"].split())), int(rng.integers(2, 5)), replace=False))
        ),
    )
