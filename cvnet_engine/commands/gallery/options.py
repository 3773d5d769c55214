"""What commands that look after one gallery have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cvnet_engine.outputs import Files


@dataclass(frozen=True, kw_only=True)
class GalleryOptions:
    """Which gallery."""

    gallery: Path
    json: Path | None = None

    @property
    def files(self) -> Files:
        return Files({"--json": self.json}, kept=[self.gallery])
