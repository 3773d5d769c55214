"""What reduced precision costs in mAP: `python -m benchmarks.accuracy.audit --data-dir DIR --dataset NAME --out OUT`.

Each precision describes database and queries with its own engines, scores its own pairs, and is judged by the
published protocol. All run on this machine's CPU; the fp16 graph is the one that a GPU gets, run by ONNX Runtime, which
rounds every value that the graph says is float16. With tens of queries, two images that change places can move mAP by a
point; so each difference comes with its standard error over the queries. Beside them, what keeping maps so takes at
1024x768 px, whatever size the data sets are shrunk to: bytes of an image, and the time of reading and decoding them as
a share of a pair's, both taken in turn.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import typer
from rich.progress import track

import scenes
from cvnet_engine.benchmarks import commands, tables
from cvnet_engine.benchmarks.accuracy.database import Database
from cvnet_engine.benchmarks.accuracy.dataset import Dataset, GroundTruth, load
from cvnet_engine.benchmarks.accuracy.evaluation import GLOBAL, Evaluation, evaluate
from cvnet_engine.benchmarks.accuracy.protocol import SETUPS
from cvnet_engine.benchmarks.commands import (
    CalibrationOption,
    DataDirOption,
    DatasetsOption,
    DepthOption,
    MaxSideOption,
    OutOption,
    ThreadsOption,
    WeightsOption,
)
from cvnet_engine.benchmarks.latency.photos import photo
from cvnet_engine.benchmarks.latency.timing import Rounds, ratio, take_turns
from cvnet_engine.benchmarks.tables import Table
from cvnet_engine.cvnet import checkpoint
from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine.backends import open_engine
from cvnet_engine.engine.backends.native.engine import accelerated
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.info import FORMAT, GalleryInfo
from cvnet_engine.engine.gallery.learnt_codec import LearntCodec
from cvnet_engine.engine.gallery.map_codec import EightBitCodec, HalfCodec, MapCodec, is_learnt, learn_codec
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import FileStamp
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.geometry import Size
from cvnet_engine.engine.graphs import GRAPH_NAMES
from cvnet_engine.engine.images import limit_side, read
from cvnet_engine.engine.retrieval.descriptors import DESCRIPTORS
from cvnet_engine.engine.retrieval.retriever import Retriever
from cvnet_engine.export.artifacts import Artifacts
from cvnet_engine.export.build import calibration_photos

SHORTLIST = 100
COST_SIZE: Size = (768, 1024)  # (height, width) px of the image that `Cost` is measured on
COST_ROUNDS = Rounds(most=20, budget_s=20)
Results = dict[str, dict[str, dict[str, list[float]]]]  # data set -> precision -> column -> AP of each query, percent


@dataclass(frozen=True)
class Precision:
    """One way to run the model.

    Attributes:
        name: of the arithmetic, as `build` takes it.
        made_for: the backends that the image graphs and the reranker are made for.
        run_by: the backends that run them.
        maps: the ways to keep the database's maps that are tried.
    """

    name: str
    made_for: tuple[str, str] = ("openvino", "native")
    run_by: tuple[str, str] = ("openvino", "native")
    maps: tuple[str, ...] = ("float16", "int8")


PRECISIONS = (
    Precision("fp32", maps=("float16", "int8", "coded:32", "coded:24", "coded:16")),
    Precision("bf16"),
    Precision("int8"),
    Precision("fp16", ("onnxruntime-cuda", "onnxruntime-cuda"), ("onnxruntime", "onnxruntime"), ("float16",)),
)


@dataclass(frozen=True)
class Cost:
    """What maps of an image of `COST_SIZE` take: bytes, and the time to read and decode them over a pair's, bounded."""

    image_bytes: int
    read_share: float
    low: float
    high: float


def cost(retriever: Retriever, kind: str, coder: MapCodec, images: Sequence[Features], folder: Path) -> Cost:
    """Measured on a gallery of these images in `folder`; the second is read, and scored beside the first."""
    query, key = images
    with GalleryWriter(folder, GalleryInfo(FORMAT, "audit", "audit", None, kind)) as writer:
        if isinstance(coder, LearntCodec):
            writer.keep_maps_by(coder, None)
        for number, features in enumerate(images):
            writer.put(Path(f"/{number}"), FileStamp(0, 0, ""), features)
    with Gallery(folder) as gallery:
        score = partial(retriever.score, query, [gallery.features(1)])
        taken = take_turns({"read": partial(gallery.features, 1), "pair": score}, COST_ROUNDS)
    share = ratio(taken["read"], taken["pair"])
    image_bytes = sum(len(coder.encode(scale, unit_map)) for scale, unit_map in enumerate(key.maps))
    return Cost(image_bytes, share.median, share.low, share.high)


def codec(kind: str, described: list[Features]) -> MapCodec:
    """That of a gallery of such maps into which these images were put."""
    if is_learnt(kind):
        return learn_codec(kind, described)
    return HalfCodec() if kind == "float16" else EightBitCodec()


def open_retriever(precision: Precision, model: CVNet, photos: list[Array], folder: Path, threads: int) -> Retriever:
    """Engines of the model in that precision, their graphs written to `folder`."""
    artifacts = Artifacts(folder, model, precision.name, photos, [], (), lambda _: None)
    with contextlib.ExitStack() as opened:
        engines = []
        for graph in GRAPH_NAMES:
            which = int(graph == "reranker")
            file = artifacts.file(graph, precision.made_for[which])
            engine = open_engine(file, precision.run_by[which], precision.name, threads)
            engines.append(opened.enter_context(engine))
        opened.pop_all()
    descriptor, features, reranker = engines
    return Retriever(descriptor, features, reranker, DESCRIPTORS[model.descriptor])


def shrunk(dataset: Dataset, max_side_px: int, folder: Path) -> Dataset:
    """The data set with every image shrunk to a longest side, boxes with them, written to `folder` without loss."""
    folder.mkdir(parents=True, exist_ok=True)
    originals = dict.fromkeys((*dataset.images, *dataset.queries))
    copies = {path: folder / f"{number}.png" for number, path in enumerate(originals)}  # names may meet twice
    scales = {path: write_shrunk(path, max_side_px, copy) for path, copy in copies.items()}

    def small(truth: GroundTruth, query: Path) -> GroundTruth:
        x1, y1, x2, y2 = (bound * scales[query] for bound in truth.bbx)
        return replace(truth, bbx=(x1, y1, x2, y2))

    return replace(
        dataset,
        images=tuple(copies[path] for path in dataset.images),
        queries=tuple(copies[path] for path in dataset.queries),
        ground_truth=tuple(map(small, dataset.ground_truth, dataset.queries)),
    )


def write_shrunk(path: Path, max_side_px: int, copy: Path) -> float:
    """Writes a copy of an image; returns its scale."""
    image = read(path)
    small = limit_side(image, max_side_px)
    cv2.imwrite(str(copy), small)
    return float(small.shape[0] / image.shape[0])


def figures(evaluation: Evaluation) -> dict[str, list[float]]:
    """AP in percent of every query that is judged, by ranking and setup, such as `reranked M`."""
    rankings = {"global": GLOBAL, "reranked": SHORTLIST}
    return {
        f"{name} {setup}": [100 * r.ap for query in evaluation.queries if (r := query.results[shortlist, setup])]
        for name, shortlist in rankings.items()
        for setup in SETUPS
    }


def markdown(report: dict[str, Any]) -> str:
    """mAP of the first precision, and how far each other one is from it, in points."""
    lines = [commands.head_line(report), ""]
    for dataset, by_precision in report["datasets"].items():
        columns = list(next(iter(by_precision.values())))
        cells = ((name, *row, *cost_cells(report["costs"][name])) for name, *row in rows(by_precision, columns))
        head = ("precision", *columns, "bytes of an image's maps", "reading them, of a pair's time")
        table = Table("", head, tuple(cells))
        lines += [f"**{dataset}**, best {SHORTLIST} reranked", "", tables.markdown(table, text_columns=1)]
    return "\n".join(lines)


def rows(by_precision: dict[str, dict[str, list[float]]], columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Table rows of a data set, a precision each."""
    (first, baseline), *others = by_precision.items()
    yield first, *(f"{np.mean(baseline[c]):.2f}" for c in columns)
    for name, aps in others:
        yield name, *(difference(aps[c], baseline[c]) for c in columns)


def cost_cells(found: dict[str, Any]) -> tuple[str, str]:
    share = Cost(**found)
    return f"{share.image_bytes:,}", f"{share.read_share:.1%} ({share.low:.1%} to {share.high:.1%})"


def difference(aps: list[float], baseline: list[float]) -> str:
    """The mean difference over queries, in points, and its standard error."""
    gains = np.subtract(aps, baseline)
    return f"{gains.mean():+.2f} ± {gains.std(ddof=1) / np.sqrt(len(gains)):.2f}"


def main(
    data_dir: DataDirOption,
    dataset: DatasetsOption,
    out: OutOption,
    calibration: CalibrationOption = None,
    weights: WeightsOption = "demo",
    depth: DepthOption = 50,
    max_side: MaxSideOption = None,
    threads: ThreadsOption = 2,
) -> None:
    """mAP of every precision on each data set."""
    model = checkpoint.load(weights, depth)
    photos = photos_for_int8(calibration, data_dir)
    results: Results = {name: {} for name in dataset}
    costs: dict[str, Cost] = {}
    with tempfile.TemporaryDirectory() as scratch:
        loaded = [prepared(name, data_dir, max_side, Path(scratch)) for name in dataset]
        for precision in PRECISIONS:
            if "native" in precision.run_by and not accelerated(precision.name):
                sys.stderr.write(f"{precision.name}: left out, which this processor has no instructions for\n")
                continue
            folder = Path(scratch) / f"{precision.name} graphs"
            folder.mkdir()
            with open_retriever(precision, model, photos, folder, threads) as retriever:
                for images in loaded:
                    described = describe(images, retriever, precision)
                    if images is loaded[0]:
                        costs |= costs_of(retriever, precision, described, Path(scratch))
                    for kind, row in audit(images, retriever, precision, described).items():
                        results[images.name][row_name(precision, kind)] = row
                    write(results, costs, out)
    sys.stdout.write(commands.beside(out, ".md").read_text())


def photos_for_int8(calibration: Path | None, data_dir: Path) -> list[Array]:
    """What int8 is calibrated on: a folder's photos, else the validation scenes, made in `data_dir` where missing."""
    return calibration_photos(calibration or scenes.write(scenes.VALIDATION, data_dir) / "jpg", "int8")


def prepared(name: str, data_dir: Path, max_side_px: int | None, scratch: Path) -> Dataset:
    """A data set by name, generated where it is ours and missing, shrunk where asked for."""
    if name in scenes.SETS:
        scenes.write(scenes.SETS[name], data_dir)
    dataset = load(data_dir, name)
    return shrunk(dataset, max_side_px, scratch / name) if max_side_px else dataset


def row_name(precision: Precision, kind: str) -> str:
    return f"{precision.name}, {kind} maps"


def describe(dataset: Dataset, retriever: Retriever, precision: Precision) -> list[Features]:
    progress = track(dataset.images, f"{dataset.name} in {precision.name}", transient=True)
    return [retriever.extract_file(path) for path in progress]


def costs_of(retriever: Retriever, precision: Precision, described: list[Features], scratch: Path) -> dict[str, Cost]:
    """What each kind of maps takes, by the name of its row; codes are those of the images described."""
    images = [retriever.extract(photo(*COST_SIZE, seed)) for seed in range(2)]
    found = {}
    for kind in precision.maps:
        name = row_name(precision, kind)
        found[name] = cost(retriever, kind, codec(kind, described), images, scratch / name)
    return found


def audit(
    dataset: Dataset, retriever: Retriever, precision: Precision, described: list[Features]
) -> dict[str, dict[str, list[float]]]:
    """The figures of one precision on a data set, by the kind of the maps kept."""
    return {
        kind: figures(evaluate(dataset, retriever, Database.as_kept(described, codec(kind, described)), [SHORTLIST]))
        for kind in precision.maps
    }


def write(results: Results, costs: dict[str, Cost], out: Path) -> None:
    """The report so far, as JSON and as tables."""
    report = {
        **commands.head("benchmarks.accuracy.audit"),
        "costs": {name: asdict(found) for name, found in costs.items()},
        "datasets": {name: rows for name, rows in results.items() if rows},
    }
    commands.write(out, report, markdown(report))


if __name__ == "__main__":
    with commands.told_in_a_line():
        typer.run(main)
