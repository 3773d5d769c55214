"""`gallery ann`: an approximate index for the global search of a large gallery."""

from __future__ import annotations

from pathlib import Path

from rich.filesize import decimal

from cvnet_engine import console
from cvnet_engine.engine.errors import counted
from cvnet_engine.engine.files import sync
from cvnet_engine.engine.gallery.ann_file import ANN, About, AnnFile
from cvnet_engine.engine.gallery.info import read_info
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import translated_errors
from cvnet_engine.engine.retrieval.ann_building import build
from cvnet_engine.engine.retrieval.inverted_file import DEPTH
from cvnet_engine.options import AnnOptions


def run(options: AnnOptions) -> None:
    about = None if options.remove else build_index(options.gallery, options.recall)
    if about is None:
        remove_index(options.gallery)
        console.say(f"{options.gallery}: no approximate index; search is exact")
    else:
        size = decimal((options.gallery / ANN).stat().st_size)
        console.say(
            f"{options.gallery}: approximate index of {counted(about.images, 'image')}, {size}; {describe(about)}"
        )


def build_index(path: Path, recall: float) -> About:
    """Build the approximate index of a gallery and store it in the gallery's folder."""
    with Gallery.open(path) as gallery, console.progress("indexing", len(gallery)) as advance:
        found = build(gallery.descriptors, recall, advance)
        with translated_errors(path):
            return AnnFile.of(found, recall, gallery.shards).save(path)


def remove_index(path: Path) -> None:
    read_info(path)  # raises if it is not a gallery
    with translated_errors(path):
        (path / ANN).unlink(missing_ok=True)
        sync(path)


def describe(about: About) -> str:
    """Describe the recall and the number of candidates of an index."""
    return (
        f"recall@{DEPTH} {about.recall:.4f} ± {about.recall_error:.4f}, measured with {about.queries} of its images as "
        f"queries, {about.candidates:,} candidates each"
    )
