"""`gallery info`, `list` and `verify`: the contents and the state of a gallery."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.filesize import decimal

from cvnet_engine import console
from cvnet_engine.commands.gallery.ann import describe
from cvnet_engine.engine.errors import GalleryError, counted
from cvnet_engine.engine.gallery.ann_file import About, AnnFile
from cvnet_engine.engine.gallery.filter import select
from cvnet_engine.engine.gallery.info import read_info
from cvnet_engine.engine.gallery.inspection import read_statistics, repair, verify
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.geometry import format_scales
from cvnet_engine.options import InfoOptions, ListOptions, VerifyOptions


def show_info(options: InfoOptions) -> None:
    made = read_info(options.gallery)
    statistics = read_statistics(options.gallery, made)
    about, reason = read_index(options.gallery)
    per_image = statistics.stored_bytes // max(1, statistics.images)
    rows = [
        ("images", f"{statistics.images:,} in {counted(statistics.shards, 'shard')}"),
        ("size on disk", f"{decimal(statistics.stored_bytes)}, {decimal(per_image)} per image"),
        ("free space", f"{decimal(statistics.free_bytes)}, which 'gallery compact' returns to the disk"),
        ("model", f"{made.weights}, {made.features_id[:12]}"),
        ("longest side", f"{made.max_side_px} px" if made.max_side_px else "no limit"),
        ("scales", format_scales(made.scales)),
        ("maps", made.maps),
        ("map compression", str(made.fidelity)),
        ("approximate index", reason or (about and f"{counted(about.images, 'image')}, {describe(about)}") or "none"),
        ("last changed", statistics.changed.astimezone().isoformat(" ", "seconds")),
    ]
    absent = {"free space": not statistics.free_bytes, "map compression": made.fidelity is None}
    console.table(str(options.gallery), ("", ""), [row for row in rows if not absent.get(row[0])])
    if options.json:
        console.write_json(
            options.json,
            {
                "gallery": str(options.gallery),
                "images": statistics.images,
                "shards": statistics.shards,
                "bytes": statistics.stored_bytes,
                "free_bytes": statistics.free_bytes,
                "changed": statistics.changed.isoformat(),
                "weights": made.weights,
                "features_id": made.features_id,
                "max_side_px": made.max_side_px,
                "scales": made.scales,
                "maps": made.maps,
                "fidelity": asdict(made.fidelity) if made.fidelity else None,
                "ann": asdict(about) if about else None,
            },
        )


def read_index(gallery: Path) -> tuple[About | None, str]:
    """Return the description of the gallery's approximate index, if any, and the error if it cannot be read."""
    try:
        index = AnnFile.load(gallery)
    except GalleryError as error:
        return None, str(error)
    return (index.about if index else None), ""


def list_images(options: ListOptions) -> None:
    with Gallery(options.gallery) as gallery:
        paths = select(gallery.paths, options.only) if options.only else gallery.paths
        if not options.json:
            console.emit("".join(f"{path}\n" for path in paths))
            return
        chosen = set(paths)
        entries = [
            {"path": str(path), **asdict(gallery.stamp(row)), "map_size": gallery.map_size(row)}
            for row, path in enumerate(gallery.paths)
            if path in chosen
        ]
    console.write_json(options.json, entries)


def verify_images(options: VerifyOptions) -> None:
    with console.progress("verifying", expected_images(options.gallery)) as advance:
        found = verify(options.gallery, advance)
    console.say(f"{options.gallery}: {counted(found.intact, 'image')} intact, {len(found.damaged)} damaged or missing")
    for path, reason in found.damaged.items():
        console.warn(f"  {path}: {reason}")
    repairing = options.repair and bool(found.damaged)
    repairs = repair(options.gallery) if repairing else []
    if options.json:
        damaged = {str(path): reason for path, reason in found.damaged.items()}
        content = {"gallery": str(options.gallery), "whole": found.intact, "damaged": damaged, "repaired": repairing}
        console.write_json(options.json, content)
    if repairing:
        console.say(f"repaired: {', '.join(repairs)}; 'cvnet-engine index' adds the images again")
    elif found.damaged:
        raise GalleryError(
            f"{options.gallery}: {counted(len(found.damaged), 'image')} damaged or missing; run 'cvnet-engine index' "
            "on the gallery's images to repair them, or 'gallery verify --repair' to remove them"
        )


def expected_images(gallery: Path) -> int:
    """Return the number of images for the progress bar; 0 if damaged shards cannot be counted."""
    made = read_info(gallery)
    try:
        return read_statistics(gallery, made).images
    except GalleryError:
        return 0
