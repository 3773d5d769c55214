"""Scene: a building, its neighbours and its street."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenes.facade import Facade, choose_facade
from scenes.materials import Colour, pick_colour


@dataclass(frozen=True)
class Scene:
    """A building, the houses left and right of it (None: its bare side is visible), and the street."""

    main: Facade
    left: Facade | None
    right: Facade | None
    depth_m: float
    street: Colour
    pavement: Colour
    seed: tuple[int, ...]


def build_scene(seed: int, index: int) -> Scene:
    """Build the scene of this seed and index; it does not depend on the rest of the set."""
    rng = np.random.default_rng((seed, index))
    return Scene(
        main=choose_facade(rng, (seed, index, 0)),
        left=choose_facade(rng, (seed, index, 1)) if rng.random() < 0.5 else None,
        right=choose_facade(rng, (seed, index, 2)) if rng.random() < 0.5 else None,
        depth_m=rng.uniform(8, 14),
        street=pick_colour(rng, "77777a 6a6a70 8b8378 7d8a63 928a80", 8),
        pavement=pick_colour(rng, "aaa59b 9c978f b5a68f a8aaac", 8),
        seed=(seed, index, 3),
    )
