"""`gallery ann`: an approximate index, so that searching a large gallery takes a fraction of the time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from rich.filesize import decimal

from cvnet_engine import console
from cvnet_engine.commands.gallery.options import GalleryOptions
from cvnet_engine.engine.files import sync
from cvnet_engine.engine.gallery.ann_file import ANN, About, AnnFile
from cvnet_engine.engine.gallery.info import read_info
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import translated_errors
from cvnet_engine.engine.retrieval.ann_building import build
from cvnet_engine.engine.retrieval.approximate import DEPTH


@dataclass(frozen=True, kw_only=True)
class Options(GalleryOptions):
    """Which gallery, the recall@100 wanted, and whether its index is taken away instead."""

    recall: float = 0.99
    remove: bool = False


def run(options: Options) -> None:
    options.files.require_apart()
    about = None if options.remove else kept(options.gallery, options.recall)
    if about is None:
        take_away(options.gallery)
        console.say(f"{options.gallery}: no approximate index; search is exact")
    else:
        size = decimal((options.gallery / ANN).stat().st_size)
        console.say(f"{options.gallery}: approximate index of {about.images:,} images, {size}; {worth(about)}")
    if options.json:
        console.write_json(options.json, {"gallery": str(options.gallery), "ann": to_json(about)})


def kept(path: Path, recall: float) -> About:
    """Build the index of a gallery, and keep it there."""
    with Gallery.open(path) as gallery, console.progress("coding", len(gallery)) as advance:
        found = build(gallery.descriptors, recall, advance)
        with translated_errors(path):
            return AnnFile.of(found, recall, gallery.shards).save(path)


def take_away(path: Path) -> None:
    read_info(path)  # a gallery it is
    with translated_errors(path):
        (path / ANN).unlink(missing_ok=True)
        sync(path)


def worth(about: About) -> str:
    """What an index finds, and by what effort."""
    return (
        f"recall@{DEPTH} {about.recall:.4f} ± {about.recall_error:.4f} of {about.queries} of its images, each left out "
        f"of its results, by {about.candidates:,} candidates"
    )


def to_json(about: About | None) -> dict[str, object] | None:
    return asdict(about) if about else None
