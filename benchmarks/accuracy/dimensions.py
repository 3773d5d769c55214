"""What correlating maps in fewer dimensions costs and saves: `python -m benchmarks.accuracy.dimensions --out OUT …`.

The basis is learnt from generated scenes, as `build --map-dims` does without photos (decision 030). Times are of pairs
of random maps, the dimensions taken in turn, and only their ratios are kept; the code that is decoded is learnt from
random vectors too.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import scenes
from cvnet_engine.benchmarks import commands, tables
from cvnet_engine.benchmarks.accuracy.audit import (
    PRECISIONS,
    SHORTLIST,
    difference,
    figures,
    open_retriever,
    prepared,
)
from cvnet_engine.benchmarks.accuracy.database import Database
from cvnet_engine.benchmarks.accuracy.dataset import Dataset
from cvnet_engine.benchmarks.accuracy.evaluation import evaluate
from cvnet_engine.benchmarks.commands import (
    DataDirOption,
    DepthOption,
    MaxSideOption,
    OutOption,
    ThreadsOption,
    WeightsOption,
)
from cvnet_engine.benchmarks.latency.timing import Rounds, ratio, take_turns
from cvnet_engine.benchmarks.tables import Table
from cvnet_engine.cvnet import checkpoint
from cvnet_engine.engine.backends import open_engine
from cvnet_engine.engine.contract import Array, Engine
from cvnet_engine.engine.gallery.map_code import MapCode
from cvnet_engine.engine.gallery.map_code import learn as learn_code
from cvnet_engine.engine.gallery.map_codec import CODED_BYTES, HalfCodec
from cvnet_engine.engine.geometry import MAP_DIM, REDUCED_DIMS, Size, map_size, pooled_size, unit_map_sizes
from cvnet_engine.engine.retrieval.retriever import Retriever
from cvnet_engine.export.artifacts import Artifacts
from cvnet_engine.export.build import calibration_photos
from cvnet_engine.export.reduction import described_by, learn, write_reduced

ARITHMETIC = ("fp32", "int8")
ROUNDS = 12  # of calls in turn, at most
FALL = 24  # dimensions in which values get smaller by e, about as in the demonstration model's maps
DIMS = (MAP_DIM, *REDUCED_DIMS)
POSITIONS = {
    "1024x768": map_size((768, 1024)),
    "512x384": map_size((384, 512)),
    "512x384, pooled": pooled_size(map_size((384, 512))),
}
Ratios = dict[str, dict[str, dict[str, float]]]  # arithmetic -> what is timed -> column -> ratio


def main(
    data_dir: DataDirOption,
    out: OutOption,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Name of a data set, or of generated scenes; times alone if left out.")
    ] = None,
    weights: WeightsOption = "demo",
    depth: DepthOption = 50,
    max_side: MaxSideOption = None,
    threads: ThreadsOption = 2,
) -> None:
    """mAP, of maps in float16 and pairs scored in fp32, and time of a pair, by the number of dimensions."""
    model = checkpoint.load(weights, depth)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        whole = Artifacts(folder, model, "fp32", [], [], (), lambda _: None).file("reranker", "native")
        report: dict[str, Any] = {
            **commands.head("benchmarks.accuracy.dimensions"),
            "pair": pair_ratios(with_reduced(whole, np.eye(MAP_DIM, dtype=np.float32)), threads),
            "decoding": decoding_ratios(whole, threads),
        }
        if dataset:
            with open_retriever(PRECISIONS[0], model, [], folder, threads) as retriever:
                photos = calibration_photos(scenes.write(scenes.CALIBRATION, folder) / "jpg", "fp32")
                basis = learn(described_by(retriever.features, photos))
                files = with_reduced(whole, basis.axes)
                report["energy"] = {str(dims): float(basis.energy[dims - 1]) for dims in DIMS}
                report["datasets"] = {
                    name: accuracy(prepared(name, data_dir, max_side, folder / "images"), retriever, files, threads)
                    for name in dataset
                }
    commands.write(out, report, markdown(report))
    sys.stdout.write(markdown(report))


def with_reduced(whole: Path, axes: Array) -> dict[int, Path]:
    """Weights of the native pair scorer by dimensions: whole maps, and the leading ones of axes (256, 256)."""
    files = {MAP_DIM: whole}
    for dims in REDUCED_DIMS:
        files[dims] = whole.with_stem(f"reranker.{dims}")
        write_reduced(whole, np.ascontiguousarray(axes[:, :dims]), files[dims])
    return files


def accuracy(
    dataset: Dataset, retriever: Retriever, files: dict[int, Path], threads: int
) -> dict[str, dict[str, list[float]]]:
    """AP of each query in percent, by column, of each number of dimensions."""
    database = Database.as_kept([retriever.extract_file(path) for path in dataset.images], HalfCodec())
    found = {}
    for dims, file in files.items():
        with open_engine(file, "native", "fp32", threads) as reranker:
            scorer = replace(retriever, reranker=reranker)
            found[str(dims)] = figures(evaluate(dataset, scorer, database, [SHORTLIST]))
    return found


def pair_ratios(files: dict[int, Path], threads: int) -> Ratios:
    """Time of a pair by size, over that of whole maps: reduced when scored, and in the basis already."""
    found: Ratios = {}
    for arithmetic in ARITHMETIC:
        found[arithmetic] = {}
        for name, positions in POSITIONS.items():
            engines = {dims: open_engine(file, "native", arithmetic, threads) for dims, file in files.items()}
            calls = {str(dims): scoring(engine, positions, MAP_DIM) for dims, engine in engines.items()}
            calls |= {f"{dims}, decoded so": scoring(engines[dims], positions, dims) for dims in REDUCED_DIMS}
            found[arithmetic][name] = ratios(calls)
            for engine in engines.values():
                engine.close()
    return found


def decoding_ratios(weights: Path, threads: int) -> Ratios:
    """Time of decoding an image's coded maps, over that of a pair of whole maps of its size in int8."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((10_000, MAP_DIM), np.float32) * np.exp(-np.arange(MAP_DIM) / FALL, dtype=np.float32)
    code = learn_code(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), CODED_BYTES)
    found: Ratios = {"int8": {}}
    with open_engine(weights, "native", "int8", threads) as engine:
        for name, positions in POSITIONS.items():
            stored = [(code.encode(m[0]), m.shape[2], m.shape[3]) for m in unit_maps(rng, positions, MAP_DIM)]
            calls = {"pair": scoring(engine, positions, MAP_DIM)}
            for dims in DIMS:
                reduced = code if dims == MAP_DIM else code.reduced(np.eye(MAP_DIM, dims, dtype=np.float32))
                calls[str(dims)] = decoding(reduced, stored)
            found["int8"][name] = ratios(calls)
    return found


def decoding(code: MapCode, stored: Sequence[tuple[bytes, int, int]]) -> Callable[[], object]:
    """A call that decodes maps, each its bytes and positions (h, w)."""
    return lambda: [code.decode(*each) for each in stored]


def scoring(engine: Engine, positions: Size, channels: int) -> Callable[[], object]:
    """A call that scores a pair of random maps of so many channels; the query stays the same."""
    rng = np.random.default_rng(0)
    feeds = {
        f"{side}_{s}": array.astype(np.float16)
        for side in ("query", "key")
        for s, array in enumerate(unit_maps(rng, positions, channels))
    }
    return lambda: engine.run(feeds)


def unit_maps(rng: np.random.Generator, positions: Size, channels: int) -> list[Array]:
    """(1, channels, h_s, w_s) float32 for each area scale, unit norm at each position."""
    maps = [rng.standard_normal((1, channels, *size), np.float32) for size in unit_map_sizes(positions)]
    return [array / np.linalg.norm(array, axis=1, keepdims=True) for array in maps]


def ratios(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Of each call's time to the first one's in the same round, the median."""
    times = take_turns(calls, Rounds(most=ROUNDS))
    first, *others = times
    return {first: 1.0} | {name: ratio(times[name], times[first]).median for name in others}


def markdown(report: dict[str, Any]) -> str:
    lines = [commands.head_line(report), ""]
    lines += [
        f"Time of a pair over that of whole maps ({MAP_DIM} dimensions), by dimensions:",
        "",
        by_size(report["pair"]),
    ]
    lines += ["Time of decoding coded maps over that of a pair in int8, by dimensions decoded to:", ""]
    lines.append(by_size(report["decoding"]))
    if "energy" in report:
        energy = ", ".join(f"{dims}: {share:.2%}" for dims, share in report["energy"].items())
        lines += [f"Share of the energy of the maps that the basis was learnt from, by dimensions: {energy}.", ""]
    for dataset, by_dims in report.get("datasets", {}).items():
        lines += [f"**{dataset}**, best {SHORTLIST} reranked", "", by_dimensions(by_dims)]
    return "\n".join(lines)


def by_size(found: Ratios) -> str:
    columns = next(iter(next(iter(found.values())).values()))
    rows = [
        (arithmetic, size, *(f"{value:.2f}" for value in row.values()))
        for arithmetic, sizes in found.items()
        for size, row in sizes.items()
    ]
    return tables.markdown(Table("", ("pairs", "maps of", *columns), tuple(rows)))


def by_dimensions(by_dims: dict[str, dict[str, list[float]]]) -> str:
    """mAP of whole maps, and how far that of fewer dimensions is from it, in points."""
    (whole, baseline), *others = by_dims.items()
    rows = [(whole, *(f"{np.mean(aps):.2f}" for aps in baseline.values()))]
    rows += [(dims, *(difference(aps[c], baseline[c]) for c in baseline)) for dims, aps in others]
    return tables.markdown(Table("", ("dimensions", *baseline), tuple(rows)), text_columns=1)


if __name__ == "__main__":
    with commands.told_in_a_line():
        typer.run(main)
