"""`gallery prune`: images whose files have been deleted out of a gallery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cvnet_engine import console
from cvnet_engine.commands.gallery.options import GalleryOptions
from cvnet_engine.commands.gallery.remove import LISTED, remove_chosen, to_json
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.vanished import Vanished, vanished


@dataclass(frozen=True, kw_only=True)
class Options(GalleryOptions):
    """Which gallery, and whether all that has vanished is taken for deleted."""

    force: bool = False
    dry_run: bool = False


def run(options: Options) -> None:
    options.files.require_apart()
    found: list[Vanished] = []

    def choose(paths: Sequence[Path]) -> list[Path]:
        found.append(vanished(paths))
        doubtful = {path for gone in found[0].doubtful.values() for path in gone} if options.force else set()
        deleted = {*found[0].deleted, *doubtful}
        return [path for path in paths if path in deleted]

    chosen, left = remove_chosen(options.gallery, choose, options.dry_run)
    doubtful = {} if options.force else found[0].doubtful
    for path, reason in list(found[0].unknown.items())[:LISTED]:
        console.warn(f"  {path}: kept, since it cannot be said whether it is there ({reason})")
    if options.json:
        kept = {str(folder): len(paths) for folder, paths in doubtful.items()}
        unknown = {str(path): reason for path, reason in found[0].unknown.items()}
        content = to_json(options.gallery, chosen, left, options.dry_run)
        console.write_json(options.json, content | {"kept": kept, "unknown": unknown})
    if doubtful:
        raise GalleryError(
            f"{options.gallery}: {sum(map(len, doubtful.values()))} images kept, of which nothing is left in "
            f"{', '.join(map(str, doubtful))}; mount the disk that they were on, or where they were deleted, give "
            "their folder to 'gallery remove', or all of them up with --force"
        )
