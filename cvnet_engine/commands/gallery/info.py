"""`gallery info`: what a gallery holds, and what made it."""

from __future__ import annotations

from dataclasses import asdict

from rich.filesize import decimal

from cvnet_engine import console
from cvnet_engine.commands.gallery.ann import to_json, worth
from cvnet_engine.commands.gallery.options import GalleryOptions
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.ann_file import About, AnnFile
from cvnet_engine.engine.gallery.census import count
from cvnet_engine.engine.gallery.info import read_info
from cvnet_engine.engine.scales import shown

Options = GalleryOptions


def run(options: Options) -> None:
    options.files.require_apart()
    made = read_info(options.gallery)
    census = count(options.gallery, made)
    changed = census.changed.astimezone().isoformat(" ", "seconds")
    about, reason = kept_index(options)
    per_image = census.stored_bytes // max(1, census.images)
    rows = [
        ("images", f"{census.images:,} in {console.counted(census.shards, 'shard')}"),
        ("on the disk", f"{decimal(census.stored_bytes)}, {decimal(per_image)} an image"),
        ("left by removed images", f"{decimal(census.free_bytes)}, which 'gallery compact' gives back"),
        ("model", f"{made.weights}, {made.features_id[:12]}"),
        ("longest side", f"{made.max_side_px} px" if made.max_side_px else "as it is"),
        ("scales", shown(made.scales)),
        ("maps", made.maps),
        ("their code", str(made.fidelity)),
        ("approximate index", reason or (about and f"{about.images:,} images, {worth(about)}") or "none"),
        ("last changed", changed),
    ]
    absent = {"left by removed images": not census.free_bytes, "their code": made.fidelity is None}
    console.table(str(options.gallery), ("", ""), [row for row in rows if not absent.get(row[0])])
    if options.json:
        console.write_json(
            options.json,
            {
                "gallery": str(options.gallery),
                "images": census.images,
                "shards": census.shards,
                "bytes": census.stored_bytes,
                "free_bytes": census.free_bytes,
                "changed": census.changed.isoformat(),
                "weights": made.weights,
                "features_id": made.features_id,
                "max_side_px": made.max_side_px,
                "scales": made.scales,
                "maps": made.maps,
                "fidelity": asdict(made.fidelity) if made.fidelity else None,
                "ann": to_json(about),
            },
        )


def kept_index(options: Options) -> tuple[About | None, str]:
    """What the gallery's approximate index says of itself, and what is wrong with it."""
    try:
        kept = AnnFile.load(options.gallery)
    except GalleryError as error:
        return None, str(error)
    return (kept.about if kept else None), ""
