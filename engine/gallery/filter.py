"""Which images of a gallery are searched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.gallery.dates import taken_within


@dataclass(frozen=True)
class Filter:
    """Images that meet every condition; an empty one is met by all.

    Attributes:
        name: what an image's path contains, in any case.
        folder: the absolute path of a folder that it is below.
        taken_from, taken_to: years, months or days, both included; see `taken_within`.
    """

    name: str = ""
    folder: str = ""
    taken_from: str = ""
    taken_to: str = ""

    def rows(self, paths: Callable[[], Sequence[str]], taken: Callable[[], Array]) -> Array | None:
        """Rows (n,) int64 of a gallery that remain, ascending; None for all.

        Args:
            paths: those of the rows.
            taken: when they were taken, as `Gallery.taken`; asked for where it is needed.

        Raises:
            GalleryError: a date of another form.
        """
        found: Array | None = None
        if self.name or self.folder:
            part, below = self.name.casefold(), self.folder.rstrip("/") + "/" if self.folder else ""
            named = [row for row, path in enumerate(paths()) if path.startswith(below) and part in path.casefold()]
            found = np.array(named, np.int64)
        if self.taken_from or self.taken_to:
            dated = np.flatnonzero(taken_within(taken(), self.taken_from, self.taken_to))
            found = dated if found is None else np.intersect1d(found, dated)
        return found
