"""What a gallery takes as it grows: `python -m benchmarks.latency.scale --folder DIR --out FILE`.

Galleries of random descriptors are generated, each opened and searched in a process of its own: seconds, memory, and
how both grow. Only the first images of a shard have maps, the smallest there are: nothing is reranked.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import typer

from benchmarks.latency.memory import status_bytes
from benchmarks.tables import Table, markdown, ms
from engine import machine
from engine.contract import Array
from engine.files import write_atomically
from engine.gallery.columns import Columns, write_columns
from engine.gallery.info import FORMAT, GalleryInfo, write_info
from engine.gallery.reader import Gallery
from engine.gallery.shards import (
    FileStamp,
    StoredImage,
    create_shard,
    insert_belongings,
    insert_image,
    mark_changed,
    read_contents,
    set_count,
    shard_file,
)
from engine.gallery.writer import IMAGES_PER_SHARD, GalleryWriter
from engine.geometry import DESCRIPTOR_DIM, MAP_DIM, unit_map_sizes
from engine.retrieval.ranking import Ranking
from engine.retrieval.search import DescriptorIndex, parts, similarities

MAP_SIZE = (2, 2)
MAPPED = 16  # images of a shard that have maps
TOP_K = 100
NOISE = 0.02  # of a query's each value beside the row that it is made of, whose values are 0.022 large
INFO = GalleryInfo(FORMAT, "benchmark", "benchmark", None)


T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """A gallery of `images`, in seconds and bytes.

    `private` is memory that only this process has and that the system cannot take back, `resident` all of it, pages of
    the gallery's files included; `bare` is the process's before it opened anything. `searches_s` follow the first;
    `_cpu_s` is processor time, which other programs change less than the time that passes.
    """

    images: int
    stored: int
    open_s: float
    open_cpu_s: float
    opened_private: int
    first_search_s: float
    searches_s: list[float]
    searches_cpu_s: list[float]
    searched_private: int
    searched_resident: int
    bare_private: int
    open_to_write_s: float
    read_features_s: float
    exact: bool

    @property
    def search_s(self) -> float:
        return statistics.median(self.searches_s)

    @property
    def search_cpu_s(self) -> float:
        return statistics.median(self.searches_cpu_s)


def generate(path: Path, images: int) -> None:
    """A gallery of random unit descriptors, a shard a transaction."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(images)
    starts = range(0, images, IMAGES_PER_SHARD)
    for number, start in enumerate(starts):
        rows = rng.standard_normal((min(IMAGES_PER_SHARD, images - start), DESCRIPTOR_DIM), np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        write_shard(shard_file(path, number), start, rows)
    write_info(path, replace(INFO, shards=len(starts)))


def write_shard(file: Path, start: int, rows: Array) -> None:
    """A whole shard of descriptors (n, 2048) in one transaction, and its columns."""
    maps = [np.zeros((MAP_DIM, *size), np.float16) for size in unit_map_sizes(MAP_SIZE)]
    images = []
    for id_, row in enumerate(rows):
        folder, number = divmod(start + id_, 1000)
        stamp = FileStamp(1_000_000, 1_700_000_000_000_000_000, f"{start + id_:064x}")
        images.append(StoredImage(id_, Path(f"/photos/{folder:04d}/{number:08d}.jpg"), MAP_SIZE, row, stamp))
    shard = create_shard(file)
    with shard as transaction:
        for image in images:
            insert_image(transaction, image)
            if image.id < MAPPED:
                stored = [(scale, *array.shape, array.tobytes()) for scale, array in enumerate(maps)]
                insert_belongings(transaction, image.id, {"maps": stored})
        set_count(transaction, len(images))
        mark_changed(transaction)
    state = read_contents(shard, FORMAT).state
    shard.close()
    assert state is not None
    write_columns(file, state, Columns.of_images(images))


def measure(path: Path, queries: int) -> Measured:
    """Open a gallery, search it and read from it. For a process of its own."""
    bare = private_bytes()
    gallery, open_s, open_cpu_s = timed(lambda: Gallery(path))
    opened = private_bytes()
    asked = np.random.default_rng(0).integers(0, len(gallery), queries + 1)
    described = [query_near(gallery.descriptors[int(row)], int(row)) for row in asked]

    index, laid_out_s, _ = timed(lambda: DescriptorIndex(gallery.descriptors))
    first, first_s, _ = timed(lambda: index.search(described[0], TOP_K))
    searches = [timed(partial(index.search, query, TOP_K))[1:] for query in described[1:]]
    private, resident = private_bytes(), status_bytes("VmRSS")

    shards = range(0, len(gallery), IMAGES_PER_SHARD)
    _, features_s, _ = timed(lambda: [gallery.features(row) for row in shards])
    expected = brute_force(gallery, described[0])
    exact = np.array_equal(first.rows, expected.rows) and np.array_equal(first.similarities, expected.similarities)
    index.close()
    gallery.close()

    writer, writing_s, _ = timed(lambda: GalleryWriter(path, gallery.info))
    writer.close()
    stored = sum(file.stat().st_size for file in path.iterdir())
    return Measured(
        images=len(gallery),
        stored=stored,
        open_s=open_s,
        open_cpu_s=open_cpu_s,
        opened_private=opened,
        first_search_s=laid_out_s + first_s,
        searches_s=[wall_s for wall_s, _ in searches],
        searches_cpu_s=[cpu_s for _, cpu_s in searches],
        searched_private=private,
        searched_resident=resident,
        bare_private=bare,
        open_to_write_s=writing_s,
        read_features_s=features_s / len(shards),
        exact=exact,
    )


def timed(call: Callable[[], T]) -> tuple[T, float, float]:
    """What a call returns, its seconds, and those of the processor."""
    started, started_cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - started, time.process_time() - started_cpu


def query_near(row: Array, seed: int) -> Array:
    """A unit descriptor that is somewhat like a row."""
    noisy = row + NOISE * np.random.default_rng(seed).standard_normal(len(row), np.float32)
    return np.asarray(noisy / np.linalg.norm(noisy), np.float32)


def brute_force(gallery: Gallery, query: Array) -> Ranking:
    """The best by all similarities, each summed in full."""
    descriptors = gallery.descriptors
    found = [similarities(descriptors[part], query) for part in parts(len(descriptors))]
    return Ranking.by_similarity(np.concatenate(found)).first(TOP_K)


def private_bytes() -> int:
    """Memory of this process alone that was written to."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:"))


def slope(found: list[Measured], value: str) -> float:
    """What each further image adds, from the smallest gallery to the largest."""
    few, many = found[0], found[-1]
    return float(getattr(many, value) - getattr(few, value)) / max(many.images - few.images, 1)


def table(found: list[Measured], title: str) -> Table:
    rows = tuple(
        (
            f"{m.images:,}",
            f"{m.stored / 1e9:.2f}",
            f"{ms(1e3 * m.open_s)} ({ms(1e3 * m.open_cpu_s)})",
            f"{(m.opened_private - m.bare_private) / 1e6:.0f}",
            ms(1e3 * m.first_search_s),
            f"{ms(1e3 * m.search_s)} ({ms(1e3 * m.search_cpu_s)})",
            f"{m.searched_private / 1e6:.0f}",
            f"{m.searched_resident / 1e6:,.0f}",
            ms(1e3 * m.open_to_write_s),
            "yes" if m.exact else "no",
        )
        for m in found
    )
    columns = (
        "images",
        "on the disk, GB",
        "open, ms (of processor)",
        "private memory of that, MB",
        "first search, ms",
        "search, ms (of processor)",
        "private memory then, MB",
        "resident then, MB",
        "open to write, ms",
        "equal to all sums",
    )
    each = (
        f"{1e6 * slope(found, 'open_cpu_s'):.2f} s of the processor to open, "
        f"{1e6 * slope(found, 'search_cpu_s'):.2f} s a search, "
        f"{slope(found, 'opened_private'):.0f} MB of private memory, {1e-3 * slope(found, 'searched_resident'):.2f} GB "
        f"resident"
    )
    return Table(title, columns, rows, f"A million images more take {each}.")


def main(
    folder: Annotated[Path, typer.Option(help="Where galleries are generated, and removed again.")],
    out: Annotated[Path, typer.Option(help="Written as OUT.json and OUT.md.")],
    images: Annotated[str, typer.Option(help="Sizes, ascending.")] = "10000,100000,1000000",
    queries: Annotated[int, typer.Option(help="Searches timed after the first.")] = 20,
) -> None:
    """Generate galleries, open and search each, and write the table."""
    found = []
    for count in map(int, images.split(",")):
        path = folder / f"scale-{count}.gallery"
        try:
            typer.echo(f"generating {count:,} images", err=True)
            generate(path, count)
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                found.append(pool.submit(measure, path, queries).result())
            typer.echo(f"{found[-1]}", err=True)
        finally:
            shutil.rmtree(path, ignore_errors=True)
    report = {
        "command": f"python -m benchmarks.latency.scale --images {images} --queries {queries}",
        "date": date.today().isoformat(),
        "machine": machine.describe(),
        "galleries": [asdict(measured) for measured in found],
    }
    written = table(found, f"Random descriptors, best {TOP_K}, on {os.cpu_count()} cores of {machine.cpu_name()}")
    write_atomically(out.with_suffix(".json"), json.dumps(report, indent=2) + "\n")
    write_atomically(out.with_suffix(".md"), f"{markdown(written, text_columns=0)}\n{written.note}\n")


if __name__ == "__main__":
    typer.run(main)
