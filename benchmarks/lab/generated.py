"""Generated galleries of any size: photographs with compressed maps, spread among random descriptors.

DIR/shortlist-512/          the generated scenes, and the gallery that `index` creates from them
DIR/scale-100000.gallery/   100,000 images, with those photographs evenly spread among them
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import scenes
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.columns import Columns, columns_file, write_columns
from cvnet_engine.engine.gallery.indexing import IndexReport, index
from cvnet_engine.engine.gallery.info import FORMAT, GalleryInfo, read_info, write_info
from cvnet_engine.engine.gallery.map_codecs import CODE_FILE
from cvnet_engine.engine.gallery.shards import (
    CODED_PAGE_BYTES,
    FileStamp,
    StoredImage,
    create_shard,
    insert_image,
    insert_rows,
    mark_changed,
    read_contents,
    set_count,
    shard_file,
    shard_files,
)
from cvnet_engine.engine.gallery.walk import Intact, walk
from cvnet_engine.engine.gallery.writer import IMAGES_PER_SHARD, GalleryWriter
from cvnet_engine.engine.geometry import DESCRIPTOR_DIM, Size
from cvnet_engine.engine.retrieval.engines import Engines

SHORTLIST = 100  # photographs
MAPS = "coded:24"
SCENES, VIEWS, SEED = 26, 4, 606
STAMP = FileStamp(1_000_000, 1_700_000_000_000_000_000, "")
NO_MAPS: Size = (2, 2)  # map size recorded for an image without maps


@dataclass(frozen=True)
class Photographs:
    """A gallery of photographed scenes, and another photograph of the first scene as a query."""

    gallery: Path
    query: Path


def photograph(folder: Path, bundle: Path, side_px: int, done: Callable[[Path], None]) -> Photographs:
    """Create a gallery of `SHORTLIST` photographs with a longest side of `side_px`; existing images are kept."""
    size = (side_px * 3 // 4, side_px)
    generated = scenes.SceneSet(f"shortlist-{side_px}", SEED, SCENES, VIEWS, distractors=0, size=size)
    root = scenes.write(generated, folder)
    query, *others = sorted((root / "jpg").iterdir())
    opened = Bundle(bundle)
    made = GalleryInfo.made_with(opened.manifest, None, MAPS)
    with Engines.open(opened) as engines, GalleryWriter(root / "gallery", made) as writer:
        index(others[:SHORTLIST], engines, writer, None, IndexReport(), done)
    return Photographs(root / "gallery", query)


def generate(path: Path, images: int, photographs: Path, done: Callable[[int], None] = lambda _: None) -> None:
    """Create a gallery of `images` entries: photographs, evenly spread among random unit descriptors without maps.

    Each shard is one transaction; `done` is called with its number of images. After an interruption, finished shards
    are kept, except the last one, because images may have been appended to it.

    Raises:
        GalleryError: the gallery was started with other photographs, whose maps have another codec.
    """
    info = read_info(photographs)
    shown = [found for found in walk(photographs, info) if isinstance(found, Intact)]
    places = {number * images // len(shown): picture for number, picture in enumerate(shown)}
    starts = range(0, images, IMAGES_PER_SHARD)
    path.mkdir(parents=True, exist_ok=True)
    copy_codec(photographs / CODE_FILE, path / CODE_FILE)
    remove_unfinished(path, len(starts) - 1)
    for number, start in enumerate(starts):
        file, count = shard_file(path, number), min(IMAGES_PER_SHARD, images - start)
        if not file.exists():
            rows = np.random.default_rng((images, number)).standard_normal((count, DESCRIPTOR_DIM), np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            write_shard(file, start, rows, {place - start: found for place, found in places.items() if place >= start})
        done(count)
    write_info(path, replace(info, format=FORMAT, shards=len(starts)))


def copy_codec(code: Path, kept: Path) -> None:
    """Copy the codec of the photographs' maps into the gallery; raises GalleryError if it has a different one."""
    if kept.exists() and kept.read_bytes() != code.read_bytes():
        raise GalleryError(f"{kept.parent}: begun with other photographs than {code.parent}; delete it to start again")
    shutil.copyfile(code, kept)


def remove_unfinished(path: Path, last: int) -> None:
    """Remove shards without columns, the last shard and any after it, and their companion files."""
    for number, file in enumerate(shard_files(path, last + 1)):
        if number >= last or not columns_file(file).exists():
            for left in path.glob(f"{file.stem}.*"):
                left.unlink()


def write_shard(file: Path, start: int, rows: Array, photographs: Mapping[int, Intact]) -> None:
    """Write a shard in one transaction, then its columns, which mark it as finished.

    Args:
        start: gallery row of the first of its rows (n, 2048).
        photographs: image id -> photograph that replaces the row.
    """
    images = []
    for id_, row in enumerate(rows):
        if id_ in photographs:
            images.append(replace(photographs[id_].image, id=id_))
        else:
            folder, number = divmod(start + id_, 1000)
            stamp = replace(STAMP, digest=f"{start + id_:064x}")
            images.append(StoredImage(id_, Path(f"/photos/{folder:04d}/{number:08d}.jpg"), NO_MAPS, row, stamp))
    shard = create_shard(file, CODED_PAGE_BYTES)
    with shard as transaction:
        for image in images:
            insert_image(transaction, image)
            if image.id in photographs:
                insert_rows(transaction, image.id, photographs[image.id].rows)
        set_count(transaction, len(images))
        mark_changed(transaction)
    state = read_contents(shard).state
    shard.close()
    write_columns(file, state, Columns.of_images(images))
