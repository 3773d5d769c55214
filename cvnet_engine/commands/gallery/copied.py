"""What `gallery merge` and `gallery convert` say of the images that they copied."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.merging import Merge


def counts(report: Merge) -> str:
    return f"{report.added} added, {report.updated} updated, {report.unchanged} unchanged"


def to_json(gallery: Path, report: Merge) -> dict[str, object]:
    damaged = {str(path): reason for path, reason in report.damaged.items()}
    return {"gallery": str(gallery), **asdict(report), "damaged": damaged}


def require_whole(report: Merge, remedy: str) -> None:
    """Raise GalleryError where images were left out, with what to do beside mending their gallery."""
    if report.damaged:
        path, reason = next(iter(report.damaged.items()))
        raise GalleryError(
            f"{len(report.damaged)} damaged images were left out ({path}: {reason}); mend their gallery with "
            f"'cvnet-engine index', {remedy}"
        )
