"""Ornaments by name, in drawing order; they distinguish a building from others of its family."""

from __future__ import annotations

from scenes.carvings import clock, frieze, medallions, niches, quoins, rose
from scenes.fittings import awnings, balconies, boxes, flags, ivy, laundry, pipes, shutters
from scenes.patterns import bands, diaper, fins, pilasters, tilework, timber
from scenes.relief import Part
from scenes.signs import graffiti, mural, sign

UNDER_WINDOWS: dict[str, Part] = {
    "diaper": diaper,
    "timber": timber,
    "bands": bands,
    "pilasters": pilasters,
    "tilework": tilework,
    "fins": fins,
}
OVER_WINDOWS: dict[str, Part] = {
    "quoins": quoins,
    "pipes": pipes,
    "frieze": frieze,
    "medallion": medallions,
    "niches": niches,
    "rose": rose,
    "clock": clock,
    "mural": mural,
    "shutters": shutters,
    "balconies": balconies,
    "boxes": boxes,
    "awnings": awnings,
    "laundry": laundry,
    "sign": sign,
    "graffiti": graffiti,
    "flags": flags,
    "ivy": ivy,
}
