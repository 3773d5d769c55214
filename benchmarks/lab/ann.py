"""Approximate compared with exact global search: `python -m benchmarks.lab.ann --like GALLERY --folder DIR --out FILE`.

Collections of descriptors are generated, and both kinds of search are timed in turn. There are three collections:

    like        drawn from the statistics of a gallery. Its images are grouped by their names up to the last `_`; each
                group shows one place. Along each principal direction, the variance between groups gives the places,
                and the variance within groups `VIEWS` photographs of each place.
    stretched   the same spectrum over 2048 / `LIVE` times as many directions, because the demonstration model uses
                only `LIVE` of the 2048 values.
    random      uniform on the sphere, the worst case: it has nothing that an index could use.

A query is another photograph of a random place. The generated directions are the coordinate axes, because an index
computes its principal directions itself.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from mmap import MADV_DONTNEED
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

from benchmarks.lab import harness
from benchmarks.lab.harness import OutOption, memory_bytes, timed
from cvnet_engine.benchmarks.tables import Table, markdown, ms
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.geometry import DESCRIPTOR_DIM
from cvnet_engine.engine.retrieval.ann_building import build
from cvnet_engine.engine.retrieval.blocks import Block, Descriptors
from cvnet_engine.engine.retrieval.inverted_file import DEPTH, Approximate, Scanner
from cvnet_engine.engine.retrieval.ranking import Ranking
from cvnet_engine.engine.retrieval.search import DescriptorIndex

Kind = Literal["like", "stretched", "random"]
KINDS: tuple[Kind, ...] = ("like", "stretched", "random")
VIEWS = 8  # photographs per place
BLOCK = 4096  # descriptors per block, as in a shard
LIVE = 384  # values of the demonstration model's descriptor that are not always 0


@dataclass(frozen=True)
class Spectrum:
    """Variances (d,) along principal directions, between places and within a place, and the length of the mean.

    A nonzero mean takes one more direction, so d is at most 2047 then.
    """

    mean: float
    between: Array
    within: Array

    @classmethod
    def of(cls, descriptors: Array, groups: Sequence[str]) -> Spectrum:
        """Measure the spectrum of descriptors (n, 2048) whose images belong to these groups.

        Raises:
            GalleryError: no group has two images.
        """
        if len(set(groups)) == len(groups):
            raise GalleryError("no place has two images; expected files named PLACE_VIEW, two of a place at least")
        mean = descriptors.mean(axis=0)
        centred = descriptors - mean
        _, singular, directions = np.linalg.svd(centred, full_matrices=False)
        singular, directions = singular[: DESCRIPTOR_DIM - 1], directions[: DESCRIPTOR_DIM - 1]
        total = singular**2 / len(centred)
        numbers = np.unique(groups, return_inverse=True)[1]
        means = np.stack([centred[numbers == number].mean(axis=0) for number in range(numbers.max() + 1)])
        spread = (centred - means[numbers]) @ directions.T
        freedom = len(centred) - len(means)  # each group's mean takes one degree of freedom
        within = np.minimum((spread**2).sum(axis=0) / freedom, total)
        return cls(float(np.linalg.norm(mean)), total - within, within)

    @classmethod
    def uniform(cls) -> Spectrum:
        return cls(0, np.zeros(DESCRIPTOR_DIM), np.ones(DESCRIPTOR_DIM))

    def stretched(self, times: float) -> Spectrum:
        """Spread the variances over `times` as many directions, up to 2047."""
        count = min(int(times * len(self.within)), DESCRIPTOR_DIM - 1)
        places = np.arange(count) / times

        def over(variances: Array) -> Array:
            return np.asarray(np.interp(places, np.arange(len(variances)), variances) / times)

        return Spectrum(self.mean, over(self.between), over(self.within))

    def places(self, block: int) -> Array:
        """Draw the places of a block of photographs, (BLOCK / VIEWS, d) float32."""
        drawn = np.random.default_rng([block, 0]).standard_normal((BLOCK // VIEWS, len(self.between)), np.float32)
        return drawn * np.sqrt(self.between).astype(np.float32)

    def photographs(self, places: Array, rng: np.random.Generator) -> Array:
        """Draw one photograph of each place (n, d), as unit descriptors (n, 2048) float32."""
        found = np.zeros((len(places), DESCRIPTOR_DIM), np.float32)
        count = places.shape[1]
        noise = rng.standard_normal(places.shape, np.float32) * np.sqrt(self.within).astype(np.float32)
        found[:, :count] = places + noise
        if self.mean:
            found[:, count] = self.mean
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))

    def block(self, number: int) -> Array:
        """Draw photographs (BLOCK, 2048) float32, grouped by place."""
        return self.photographs(np.repeat(self.places(number), VIEWS, axis=0), np.random.default_rng([number, 1]))

    def query(self, number: int, blocks: int) -> Array:
        """Draw another photograph (2048,) float32 of a place in one of the blocks."""
        rng = np.random.default_rng([number, 2])
        places = self.places(int(rng.integers(blocks)))
        (found,) = self.photographs(places[rng.integers(len(places))][None], rng)
        return np.asarray(found)


@dataclass(frozen=True)
class Measured:
    """Both kinds of search in one collection.

    Attributes:
        kind: one of `KINDS`.
        refused: why no index was built; then only the number of images is known besides.
        estimated_recall, estimated_error: recall that the build estimated, with its standard error.
        recall: fraction of the exact best 100 that these queries found.
        candidates: descriptors that exact search ordered, per query.
        index_bytes: memory of the index.
        built_resident: peak memory of the process until the index was built.
    """

    kind: str
    images: int
    refused: str = ""
    exact_s: float = 0
    ann_s: float = 0
    recall: float = 0
    estimated_recall: float = 0
    estimated_error: float = 0
    candidates: int = 0
    index_bytes: int = 0
    build_s: float = 0
    built_resident: int = 0


def generate(folder: Path, spectrum: Spectrum, blocks: int) -> Descriptors:
    """Write a collection to an empty `folder`, memory-mapped like a gallery's columns."""
    return Descriptors([write_block(folder / f"{number}", spectrum.block(number)) for number in range(blocks)])


def write_block(file: Path, rows: Array) -> Block:
    full, half = file.with_suffix(".float32.npy"), file.with_suffix(".float16.npy")
    np.save(full, rows)
    np.save(half, rows.astype(np.float16))
    mapped = np.load(full, mmap_mode="r")
    return Block(mapped, np.load(half, mmap_mode="r"), partial(mapped._mmap.madvise, MADV_DONTNEED))


def measure(folder: Path, kind: Kind, spectrum: Spectrum, images: int, target: float, queries: int) -> Measured:
    """Generate a collection, build its index, and search it both ways in turn. Must run in a fresh process.

    The approximate search comes first, so that it does not find rows cached by the exact search.
    """
    blocks = images // BLOCK
    descriptors = generate(folder, spectrum, blocks)
    try:
        built, build_s = timed(lambda: build(descriptors, target))
    except GalleryError as error:
        return Measured(kind, len(descriptors), str(error))
    resident, file, trial = memory_bytes("VmHWM"), built.file, built.trial
    approximate = Approximate(Scanner(file), np.arange(len(descriptors)), np.empty(0, np.int64), trial.effort)
    index, exact_s, ann_s, recalls = DescriptorIndex(descriptors), [], [], []
    for number in range(queries):
        query = spectrum.query(number, blocks)
        found, seconds = timed(partial(by_candidates, index, approximate, query))
        ann_s.append(seconds)
        expected, seconds = timed(partial(index.search, query, DEPTH))
        exact_s.append(seconds)
        recalls.append(float(np.isin(expected.rows, found.rows).mean()))
    return Measured(
        kind=kind,
        images=len(descriptors),
        exact_s=statistics.median(exact_s),
        ann_s=statistics.median(ann_s),
        recall=statistics.mean(recalls),
        estimated_recall=trial.recall,
        estimated_error=trial.error,
        candidates=trial.effort.candidates,
        index_bytes=file.codes.nbytes + 2 * file.members.nbytes,
        build_s=build_s,
        built_resident=resident,
    )


def by_candidates(index: DescriptorIndex, approximate: Approximate, query: Array) -> Ranking:
    return index.search(query, DEPTH, approximate.propose(query))


def spectrum_of(kind: Kind, like: Path) -> Spectrum:
    if kind == "random":
        return Spectrum.uniform()
    with Gallery(like) as gallery:
        measured = Spectrum.of(gallery.descriptors[:], [path.stem.rpartition("_")[0] for path in gallery.paths])
    return measured.stretched(DESCRIPTOR_DIM / LIVE) if kind == "stretched" else measured


def table(found: Sequence[Measured]) -> Table:
    columns = (
        "descriptors",
        "images",
        "exact, ms",
        "approximate, ms",
        "times as fast",
        "recall@100",
        "estimated at build",
        "candidates",
        "index, MB",
        "build, s",
    )
    return Table("", columns, tuple(map(row, found)))


def row(m: Measured) -> tuple[str, ...]:
    if m.refused:
        return (m.kind, f"{m.images:,}", *"-" * 7, f"refused: {m.refused}")
    return (
        m.kind,
        f"{m.images:,}",
        ms(1e3 * m.exact_s),
        ms(1e3 * m.ann_s),
        f"{m.exact_s / m.ann_s:.1f}",
        f"{m.recall:.4f}",
        f"{m.estimated_recall:.4f} ± {m.estimated_error:.4f}",
        f"{m.candidates:,}",
        f"{m.index_bytes / 1e6:.0f}",
        f"{m.build_s:.0f}",
    )


def main(
    like: Annotated[Path, typer.Option(help="Gallery whose spectrum the generated descriptors follow.")],
    folder: Annotated[Path, typer.Option(help="Folder for generated collections; they are removed afterwards.")],
    out: OutOption,
    images: Annotated[str, typer.Option(help="Sizes, ascending.")] = "100000,1000000",
    kinds: Annotated[str, typer.Option(help=f"Which of {', '.join(KINDS)}.")] = ",".join(KINDS),
    recall: Annotated[float, typer.Option(help="Target recall@100.")] = 0.99,
    queries: Annotated[int, typer.Option(help="Searches of each kind.")] = 100,
) -> None:
    """Generate collections, index and search each, and write the table."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for kind in (kind for kind in KINDS if kind in kinds.split(",")):
        spectrum = spectrum_of(kind, like)
        for count in map(int, images.split(",")):
            harness.log(f"{kind}, {count:,} images")
            with (
                tempfile.TemporaryDirectory(prefix=f"ann-{kind}-", dir=folder) as path,
                ProcessPoolExecutor(1, get_context("spawn")) as pool,
            ):
                found.append(pool.submit(measure, Path(path), kind, spectrum, count, recall, queries).result())
            collections = [asdict(measured) for measured in found]
            report = {**harness.head("benchmarks.lab.ann"), "load": os.getloadavg(), "collections": collections}
            title = f"Approximate search for the best {DEPTH}, target recall {recall}"
            harness.write(out, title, report, markdown(table(found)))


if __name__ == "__main__":
    with harness.errors_as_one_line():
        typer.run(main)
