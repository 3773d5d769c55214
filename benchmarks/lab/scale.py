"""Cost of a gallery by its size: `python -m benchmarks.lab.scale --bundle DIR --folder DIR --out FILE`.

Galleries are generated (`benchmarks.lab.generated`). A new process opens, searches and reranks each, then queries it
while another process appends to it. Reported are seconds, memory, and their growth. An interrupted run resumes with the
shards that it has written; the report is written after each gallery.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import typer

from benchmarks.lab import commands
from benchmarks.lab.appending import RERANKED, Beside, search_beside
from benchmarks.lab.commands import OutOption
from benchmarks.lab.generated import MAPS, SHORTLIST, Photographs, generate, photograph
from cvnet_engine.benchmarks.latency.memory import status_bytes
from cvnet_engine.benchmarks.latency.timing import Calls, Rounds, take_turns
from cvnet_engine.benchmarks.tables import Table, markdown, ms
from cvnet_engine.engine import machine
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.search import DescriptorIndex, parts, similarities

TOP_K = 100
NOISE = 0.02  # standard deviation of the noise on each value of a query; the values have a magnitude of 0.022

T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """Seconds and bytes of a gallery of `images`.

    `private` is memory that only this process uses and that the system cannot reclaim. `resident` is all memory,
    including pages of the gallery's files. `bare` is the process's memory before it opened anything. `searches_s` are
    the searches after the first. `_cpu_s` is processor time, which other programs affect less than elapsed time.
    `read_s` is the median time to read and decode an image's maps, `rerank_s` to rerank the best `TOP_K` of a
    photograph.
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
    read_s: float
    rerank_s: float
    exact: bool
    beside: Beside

    @property
    def search_s(self) -> float:
        return statistics.median(self.searches_s)

    @property
    def search_cpu_s(self) -> float:
        return statistics.median(self.searches_cpu_s)


def measure(path: Path, queries: int, rounds: int, photographs: Photographs, bundle: Path) -> Measured:
    """Open a gallery, search it, rerank, and append to it. Must run in a fresh process."""
    bare = private_bytes()
    gallery, open_s, open_cpu_s = timed(lambda: Gallery(path))
    opened = private_bytes()
    asked = np.random.default_rng(0).integers(0, len(gallery), queries + 1)
    described = [query_near(gallery.descriptors[int(row)], int(row)) for row in asked]

    index, laid_out_s, _ = timed(lambda: DescriptorIndex(gallery.descriptors))
    first, first_s, _ = timed(lambda: index.search(described[0], TOP_K))
    searches = [timed(partial(index.search, query, TOP_K))[1:] for query in described[1:]]
    private, resident = private_bytes(), status_bytes("VmRSS")

    with Engines.open(Bundle(bundle)) as engines:
        query = engines.extract_from(photographs.query)
        shortlist = index.search(query.descriptor, TOP_K).rows.tolist()
        calls: Calls = {
            "read": lambda: [gallery.features(row) for row in shortlist],
            "rerank": lambda: engines.score_rows(query, gallery, shortlist),
        }
        taken = take_turns(calls, Rounds(fewest=rounds, most=rounds))
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
        read_s=taken["read"].median / len(shortlist),
        rerank_s=taken["rerank"].median,
        exact=exact,
        beside=search_beside(path, photographs, bundle, rounds),
    )


def timed(call: Callable[[], T]) -> tuple[T, float, float]:
    """Return a call's result, its elapsed seconds, and its processor seconds."""
    started, started_cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - started, time.process_time() - started_cpu


def query_near(row: Array, seed: int) -> Array:
    """Return a unit descriptor similar to a row."""
    noisy = row + NOISE * np.random.default_rng(seed).standard_normal(len(row), np.float32)
    return np.asarray(noisy / np.linalg.norm(noisy), np.float32)


def brute_force(gallery: Gallery, query: Array) -> Ranking:
    """Return the best `TOP_K` by exact similarities with all descriptors."""
    descriptors = gallery.descriptors
    found = [similarities(descriptors[part], query) for part in parts(len(descriptors))]
    return Ranking.by_similarity(np.concatenate(found)).first(TOP_K)


def private_bytes() -> int:
    """Return the bytes of private memory that this process has written to."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:"))


def slope(found: list[Measured], value: str) -> float:
    """Return the growth per image, from the smallest gallery to the largest."""
    few, many = found[0], found[-1]
    return float(getattr(many, value) - getattr(few, value)) / max(many.images - few.images, 1)


def growth_table(found: list[Measured], title: str) -> Table:
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


def beside_table(found: list[Measured]) -> Table:
    """Build the table of reranking, and of queries beside a writer."""
    rows = tuple(
        (
            f"{m.images:,}",
            ms(1e3 * m.read_s),
            ms(1e3 * m.rerank_s),
            ms(1e3 * statistics.median(m.beside.alone_s)),
            ms(1e3 * statistics.median(m.beside.beside_s)),
            f"{m.beside.appended / m.beside.appending_s:.0f}",
            "yes" if m.beside.equal and m.beside.grown else "no",
        )
        for m in found
    )
    columns = (
        "images",
        f"maps of an image ({MAPS}) read and decoded, ms",
        f"best {TOP_K} reranked, ms",
        f"opened, searched, {RERANKED} reranked, ms",
        "the same beside a writer, ms",
        "images appended meanwhile, a second",
        "same answers, each of a larger gallery",
    )
    return Table("Reranking, alone and while another process appends", columns, rows)


class Progress:
    """Progress on standard error: a line for each tenth of the work."""

    def __init__(self, work: str, total: int) -> None:
        self._work, self._total, self._done = work, total, 0

    def advance(self, steps: int) -> None:
        before, self._done = self._done, self._done + steps
        if 10 * before // self._total < 10 * self._done // self._total:
            typer.echo(f"{self._work}: {self._done / self._total:.0%}", err=True)


def main(
    bundle: Annotated[Path, typer.Option(help="Bundle that extracts features and scores pairs.")],
    folder: Annotated[Path, typer.Option(help="Folder for generated galleries; each is removed afterwards.")],
    out: OutOption,
    images: Annotated[str, typer.Option(help="Sizes, ascending.")] = "10000,100000,1000000",
    queries: Annotated[int, typer.Option(help="Searches timed after the first.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Queries timed alone, beside the writer, and rerankings.")] = 10,
    side: Annotated[int, typer.Option(help="Longest side of the photographs, px.")] = 512,
) -> None:
    """Generate galleries, measure each, and write the tables."""
    indexed = Progress("indexing photographs", SHORTLIST)
    photographs = photograph(folder, bundle, side, lambda _: indexed.advance(1))
    found: list[Measured] = []
    for count in map(int, images.split(",")):
        path = folder / f"scale-{count}.gallery"
        generate(path, count, photographs.gallery, Progress(f"generating {count:,} images", count).advance)
        typer.echo(f"measuring {count:,} images", err=True)
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found.append(pool.submit(measure, path, queries, rounds, photographs, bundle).result())
        shutil.rmtree(path)
        write(found, out)


def write(found: list[Measured], out: Path) -> None:
    """Write the report so far, as JSON and as tables."""
    report = {
        **commands.head("benchmarks.lab.scale"),
        "galleries": [asdict(measured) for measured in found],
    }
    where = f"{os.cpu_count()} cores of {machine.cpu_name()}"
    growth = growth_table(found, f"Random descriptors, best {TOP_K}, on {where}")
    tables = f"{markdown(growth, text_columns=0)}\n{growth.note}\n\n{markdown(beside_table(found), text_columns=0)}"
    commands.write(out, report, tables)


if __name__ == "__main__":
    with commands.errors_as_one_line():
        typer.run(main)
