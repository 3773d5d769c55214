"""Cost of a gallery by its size: `python -m benchmarks.lab.scale --folder DIR --out FILE`.

Galleries of random descriptors, without feature maps, are generated. A new process opens and searches each. Reported
are seconds and memory.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.lab import harness
from benchmarks.lab.harness import OutOption, Progress, memory_bytes, timed
from cvnet_engine.benchmarks.tables import Table, markdown, ms
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.gallery.columns import Columns, write_columns
from cvnet_engine.engine.gallery.info import FORMAT, GalleryInfo, write_info
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import (
    CODED_PAGE_BYTES,
    FileStamp,
    StoredImage,
    create_shard,
    insert_image,
    mark_changed,
    read_contents,
    set_count,
    shard_file,
)
from cvnet_engine.engine.gallery.writer import IMAGES_PER_SHARD
from cvnet_engine.engine.geometry import DESCRIPTOR_DIM, Size
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.search import DescriptorIndex, parts, similarities

TOP_K = 100
NOISE = 0.02  # standard deviation of the noise on each value of a query; the values have a magnitude of 0.022
NO_MAPS: Size = (2, 2)  # map size recorded for an image without maps
STAMP = FileStamp(1_000_000, 1_700_000_000_000_000_000, "")


@dataclass(frozen=True)
class Measured:
    """Seconds and bytes of a gallery of `images`.

    Attributes:
        stored: bytes on disk.
        searches_s: searches after the first.
        searched_private: memory that only the process uses and that the system cannot reclaim.
        searched_resident: all memory, including pages of the gallery's files.
        exact: the first search has the same results as sums over all descriptors.
    """

    images: int
    stored: int
    open_s: float
    first_search_s: float
    searches_s: list[float]
    searched_private: int
    searched_resident: int
    exact: bool


def measure(path: Path, queries: int) -> Measured:
    """Open and search a gallery. Must run in a fresh process."""
    gallery, open_s = timed(lambda: Gallery(path))
    rows = np.random.default_rng(0).integers(0, len(gallery), queries + 1).tolist()
    described = [query_near(gallery.descriptors[row], row) for row in rows]
    index, prepare_s = timed(lambda: DescriptorIndex(gallery.descriptors))
    first, first_s = timed(lambda: index.search(described[0], TOP_K))
    searches_s = [timed(partial(index.search, query, TOP_K))[1] for query in described[1:]]
    private, resident = memory_bytes("Private_Dirty", "smaps_rollup"), memory_bytes("VmRSS")
    expected = brute_force(gallery, described[0])
    index.close()
    gallery.close()
    return Measured(
        images=len(gallery),
        stored=sum(file.stat().st_size for file in path.iterdir()),
        open_s=open_s,
        first_search_s=prepare_s + first_s,
        searches_s=searches_s,
        searched_private=private,
        searched_resident=resident,
        exact=np.array_equal(first.rows, expected.rows) and np.array_equal(first.similarities, expected.similarities),
    )


def query_near(row: Array, seed: int) -> Array:
    """Return a unit descriptor similar to a row."""
    noisy = row + NOISE * np.random.default_rng(seed).standard_normal(len(row), np.float32)
    return np.asarray(noisy / np.linalg.norm(noisy), np.float32)


def brute_force(gallery: Gallery, query: Array) -> Ranking:
    """Return the best `TOP_K` by exact similarities with all descriptors."""
    descriptors = gallery.descriptors
    found = [similarities(descriptors[part], query) for part in parts(len(descriptors))]
    return Ranking.by_similarity(np.concatenate(found)).first(TOP_K)


def generate(path: Path, images: int) -> None:
    """Create a gallery of random unit descriptors."""
    starts = range(0, images, IMAGES_PER_SHARD)
    progress = Progress(f"generating {images:,} images", len(starts))
    for number, start in enumerate(starts):
        count = min(IMAGES_PER_SHARD, images - start)
        rows = np.random.default_rng((images, number)).standard_normal((count, DESCRIPTOR_DIM), np.float32)
        write_shard(shard_file(path, number), start, rows / np.linalg.norm(rows, axis=1, keepdims=True))
        progress.advance()
    write_info(path, GalleryInfo(FORMAT, "generated", "generated", None, shards=len(starts)))


def write_shard(file: Path, start: int, rows: Array) -> None:
    """Write a shard without maps in one transaction, and its columns.

    Args:
        start: gallery row of the first of its descriptors (n, 2048).
    """
    images = []
    for id_, row in enumerate(rows):
        folder, number = divmod(start + id_, 1000)
        stamp = replace(STAMP, digest=f"{start + id_:064x}")
        images.append(StoredImage(id_, Path(f"/photos/{folder:04d}/{number:08d}.jpg"), NO_MAPS, row, stamp))
    shard = create_shard(file, CODED_PAGE_BYTES)
    with shard as transaction:
        for image in images:
            insert_image(transaction, image)
        set_count(transaction, len(images))
        mark_changed(transaction)
    state = read_contents(shard).state
    shard.close()
    write_columns(file, state, Columns.of_images(images))


def table(galleries: Sequence[dict[str, Any]]) -> Table:
    """Build a table with a row per gallery, from the JSON of `Measured`."""
    columns = (
        "images",
        "disk, GB",
        "open, ms",
        "first search, ms",
        "search, ms",
        "private memory, MB",
        "resident memory, MB",
        "exact",
    )
    rows = tuple(
        (
            f"{m['images']:,}",
            f"{m['stored'] / 1e9:.2f}",
            ms(1e3 * m["open_s"]),
            ms(1e3 * m["first_search_s"]),
            ms(1e3 * statistics.median(m["searches_s"])),
            f"{m['searched_private'] / 1e6:.0f}",
            f"{m['searched_resident'] / 1e6:,.0f}",
            "yes" if m["exact"] else "no",
        )
        for m in galleries
    )
    return Table("", columns, rows)


def main(
    folder: Annotated[Path, typer.Option(help="Folder for generated galleries; each is removed afterwards.")],
    out: OutOption,
    images: Annotated[str, typer.Option(help="Sizes, ascending.")] = "10000,100000,1000000",
    queries: Annotated[int, typer.Option(min=1, help="Searches timed after the first.")] = 20,
) -> None:
    """Generate galleries, measure each, and write the table."""
    folder.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    for count in map(int, images.split(",")):
        with (
            tempfile.TemporaryDirectory(prefix="scale-", dir=folder) as path,
            ProcessPoolExecutor(1, get_context("spawn")) as pool,
        ):
            generate(Path(path), count)
            harness.log(f"measuring {count:,} images")
            found.append(asdict(pool.submit(measure, Path(path), queries).result()))
        report = {**harness.head("benchmarks.lab.scale"), "galleries": found}
        harness.write(out, "Galleries of random descriptors", report, markdown(table(found), text_columns=0))


if __name__ == "__main__":
    with harness.errors_as_one_line():
        typer.run(main)
