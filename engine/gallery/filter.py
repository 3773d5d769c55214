"""Which images of a gallery are searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.contract import Array


@dataclass(frozen=True)
class Filter:
    """Images that meet every condition; an empty one is met by all.

    Attributes:
        name: what an image's path contains, in any case.
        folder: the absolute path of a folder that it is below.
    """

    name: str = ""
    folder: str = ""

    def rows(self, paths: Sequence[str]) -> Array | None:
        """Rows (n,) int64 of a gallery's paths that remain, ascending; None for all."""
        if not self.name and not self.folder:
            return None
        part, below = self.name.casefold(), self.folder.rstrip("/") + "/" if self.folder else ""
        found = [row for row, path in enumerate(paths) if path.startswith(below) and part in path.casefold()]
        return np.array(found, np.int64)
