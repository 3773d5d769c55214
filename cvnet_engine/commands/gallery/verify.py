"""`gallery verify`: whether everything in a gallery is as it was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cvnet_engine import console
from cvnet_engine.commands.gallery.options import GalleryOptions
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.census import count
from cvnet_engine.engine.gallery.info import read_info
from cvnet_engine.engine.gallery.verification import Verification, repair, verify


@dataclass(frozen=True, kw_only=True)
class Options(GalleryOptions):
    """Which gallery, and whether what is damaged is taken out."""

    repair: bool = False


def run(options: Options) -> None:
    options.files.require_apart()
    with console.progress("verifying", expected(options.gallery)) as advance:
        found = verify(options.gallery, advance)
    console.say(f"{options.gallery}: {found.whole} images whole, {len(found.damaged)} found damaged or missing")
    for path, reason in found.damaged.items():
        console.warn(f"  {path}: {reason}")
    repairing = options.repair and bool(found.damaged)
    repairs = repair(options.gallery) if repairing else []
    if options.json:
        console.write_json(options.json, to_json(options.gallery, found, repairing))
    if repairing:
        console.say(f"repaired: {', '.join(repairs)}; 'cvnet-engine index' takes the images in anew")
    elif found.damaged:
        raise GalleryError(
            f"{options.gallery}: {len(found.damaged)} damaged or missing; run 'cvnet-engine index' with the gallery's "
            "images again, which mends it, or 'gallery verify --repair', which takes them out"
        )


def expected(gallery: Path) -> int:
    """About how many images there are to read; a gallery whose shards cannot be counted is read all the same."""
    made = read_info(gallery)
    try:
        return count(gallery, made).images
    except GalleryError:
        return 0


def to_json(gallery: Path, found: Verification, repaired: bool) -> dict[str, object]:
    damaged = {str(path): reason for path, reason in found.damaged.items()}
    return {"gallery": str(gallery), "whole": found.whole, "damaged": damaged, "repaired": repaired}
