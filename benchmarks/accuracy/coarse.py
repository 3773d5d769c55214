"""What scoring few pairs in full costs and saves: `python -m benchmarks.accuracy.coarse --dataset NAME --out OUT …`.

A shortlist is scored on pooled maps, and only the best of it at full size (decision 025). mAP is held against that of
all pairs in full, of the same number in full chosen by similarity alone, and of none. Times are of the reranking of the
same queries, plans taken in turn; only their ratios are kept.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import tables
from benchmarks.accuracy.audit import PRECISIONS, open_retriever, prepared
from benchmarks.accuracy.dataset import Dataset
from benchmarks.accuracy.evaluation import GLOBAL, Evaluation, Selection, evaluate, extract_query
from benchmarks.accuracy.protocol import SETUPS
from benchmarks.tables import Table
from cvnet import checkpoint
from engine import machine
from engine.backends import open_engine
from engine.errors import CvnetError
from engine.features import Features
from engine.files import write_atomically
from engine.gallery.indexing import IndexReport, index
from engine.gallery.info import FORMAT, GalleryInfo
from engine.gallery.reader import Gallery
from engine.gallery.writer import GalleryWriter
from engine.retrieval.pooling import Pooled, pooled
from engine.retrieval.retriever import Retriever
from engine.retrieval.searcher import Plan, Searcher

SHORTLIST = 100
FINE = (0, 20, 30, 50)
TOP_K = (1, 5, 10)
TIMED = 8  # queries
ARITHMETIC = ("fp32", "int8")  # of the native pair scorer whose times are taken


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder of data sets; generated ones are made there where missing.")],
    dataset: Annotated[str, typer.Option(help="Name of a data set, or of generated scenes: demo, test.")],
    out: Annotated[Path, typer.Option(help="Writes OUT.json and OUT.md.")],
    weights: Annotated[str, typer.Option(help="As for 'build'.")] = "demo",
    depth: Annotated[int, typer.Option(help="As for 'build'.")] = 50,
    max_side: Annotated[int | None, typer.Option(help="Shrink images to this longest side, px.")] = None,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """mAP and cost of coarse-to-fine reranking, fp32 engines and maps in float16."""
    with tempfile.TemporaryDirectory() as scratch:
        images = prepared(dataset, data_dir, max_side, Path(scratch) / "images")
        model, graphs = checkpoint.load(weights, depth), Path(scratch) / "graphs"
        graphs.mkdir()
        with open_retriever(PRECISIONS[0], model, [], graphs, threads) as retriever:
            folder = Path(scratch) / "gallery"
            with GalleryWriter(folder, GalleryInfo(FORMAT, "", weights, None)) as writer:
                index(images.images, retriever, writer, None, IndexReport())
            with Gallery(folder) as gallery:
                report: dict[str, Any] = {
                    "command": shlex.join(["python", "-m", "benchmarks.accuracy.coarse", *sys.argv[1:]]),
                    "date": date.today().isoformat(),
                    "machine": machine.describe(),
                    "dataset": dataset,
                    "shortlist": SHORTLIST,
                    "mAP": accuracy(images, retriever, Selection.of_gallery(gallery, images.images)),
                    "cost": {},
                    "parts": {},
                }
                queries = described(images, retriever)
                report["pairs in full"] = pairs_in_full(queries, retriever, gallery)
                for arithmetic in ARITHMETIC:
                    with open_engine(graphs / "reranker.npz", "native", arithmetic, threads) as reranker:
                        scorer = replace(retriever, reranker=reranker)
                        report["cost"][arithmetic] = costs(queries, scorer, gallery)
                        report["parts"][arithmetic] = parts(queries, scorer, gallery)
    write_atomically(out.with_suffix(".json"), json.dumps(report, indent=2) + "\n")
    write_atomically(out.with_suffix(".md"), markdown(report))
    sys.stdout.write(markdown(report))


def accuracy(dataset: Dataset, retriever: Retriever, database: Selection) -> dict[str, dict[str, float]]:
    """mAP in percent by setup: of what is scored, in words."""
    lengths = [fine for fine in FINE if fine]
    full = evaluate(dataset, retriever, database, [*lengths, SHORTLIST])
    found = {"similarity alone": means(full, GLOBAL), f"all {SHORTLIST} in full": means(full, SHORTLIST)}
    for fine in FINE:
        rough = evaluate(dataset, retriever, database, [SHORTLIST], fine)
        found[f"pooled, {fine} in full" if fine else "pooled alone"] = means(rough, SHORTLIST)
        if fine:
            found[f"{fine} by similarity in full"] = means(full, fine)
    return found


def means(evaluation: Evaluation, shortlist: int) -> dict[str, float]:
    return {setup: 100 * evaluation.means(shortlist, setup)["mAP"] for setup in SETUPS}


def described(dataset: Dataset, retriever: Retriever) -> list[Features]:
    """Evenly spaced queries."""
    every = list(zip(dataset.queries, dataset.ground_truth, strict=True))
    return [extract_query(retriever, path, truth.bbx) for path, truth in every[:: -(-len(every) // TIMED)]]


def plans(top_k: int = SHORTLIST) -> dict[str, Plan]:
    """By how many are scored in full."""
    return {str(fine): Plan(top_k, SHORTLIST, fine=fine) for fine in (SHORTLIST, *reversed(FINE))}


def pairs_in_full(queries: Sequence[Features], retriever: Retriever, gallery: Gallery) -> dict[str, dict[str, float]]:
    """Mean number of pairs scored in full until no other could come among the best k, by k and plan."""
    with Searcher(retriever, gallery) as searcher:
        return {
            str(k): {
                name: float(np.mean([scored(searcher, query, plan) for query in queries]))
                for name, plan in plans(k).items()
                if plan.full_pairs
            }
            for k in TOP_K
        }


def scored(searcher: Searcher, query: Features, plan: Plan) -> int:
    return int(np.isfinite(searcher.find(query, plan).ranking.pair_scores).sum())


def costs(queries: Sequence[Features], retriever: Retriever, gallery: Gallery) -> dict[str, float]:
    """Time of reranking over that of scoring all pairs in full: the median over queries, by how many are."""
    with Searcher(retriever, gallery) as searcher:

        def seconds(query: Features, plan: Plan) -> float:
            found = searcher.find(query, plan).seconds
            return found["rerank"] + found.get("pooled", 0.0)

        return ratios([{name: seconds(query, plan) for name, plan in plans().items()} for query in queries])


def parts(queries: Sequence[Features], retriever: Retriever, gallery: Gallery) -> dict[str, float]:
    """Time of each part of a candidate's work, one after the other, over that of a pair scored in full."""
    rows = range(min(SHORTLIST, len(gallery)))
    kept = [gallery.features(row) for row in rows]
    small = [pooled(features) for features in kept]
    whole, rough = Kept(kept), Kept(small)

    def round_of(query: Features) -> dict[str, float]:
        return {
            "in full": timed(lambda: retriever.score_rows(query, whole, rows)),
            "pooled": timed(lambda: retriever.score_rows(pooled(query), rough, rows)),
            "reading": timed(lambda: [gallery.features(row) for row in rows]),
            "pooling": timed(lambda: [pooled(features) for features in kept]),
            "all of it": timed(lambda: retriever.score_rows(pooled(query), Pooled(gallery), rows)),
        }

    return ratios([round_of(query) for query in queries])


class Kept:
    """Images in memory."""

    def __init__(self, images: Sequence[Features]) -> None:
        self._images = images

    def map_size(self, row: int) -> tuple[int, int]:
        return self._images[row].map_size

    def features(self, row: int) -> Features:
        return self._images[row]


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ratios(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each name's time to the first one's in the same round, the median."""
    first = next(iter(rounds[0]))
    return {name: float(np.median([times[name] / times[first] for times in rounds])) for name in rounds[0]}


def markdown(report: dict[str, Any]) -> str:
    lines = [f"{report['machine']['cpu']}; {report['date']}; `{report['command']}`", ""]
    lines += [f"**{report['dataset']}**, best {report['shortlist']} reranked", ""]
    rows = [(name, *(f"{found[setup]:.2f}" for setup in SETUPS)) for name, found in report["mAP"].items()]
    lines.append(
        tables.markdown(Table("", ("scored", *(f"mAP {setup}" for setup in SETUPS)), tuple(rows)), text_columns=1)
    )
    lines += [f"Time of reranking, of that of all {report['shortlist']} in full:", ""]
    lines.append(by_arithmetic(report["cost"], "in full"))
    lines += ["Time of a candidate's parts, of that of its pair in full, each done alone:", ""]
    lines.append(by_arithmetic(report["parts"], ""))
    lines += ["Pairs scored in full until no other could come among the best k, of so many at most:", ""]
    found = report["pairs in full"]
    rows = [(k, *(f"{pairs:.1f}" for pairs in counts.values())) for k, counts in found.items()]
    lines.append(tables.markdown(Table("", ("k", *next(iter(found.values()))), tuple(rows)), text_columns=1))
    return "\n".join(lines)


def by_arithmetic(found: dict[str, dict[str, float]], what: str) -> str:
    names = next(iter(found.values()))
    rows = [(arithmetic, *(f"{ratio:.2f}" for ratio in row.values())) for arithmetic, row in found.items()]
    return tables.markdown(
        Table("", ("pairs", *(f"{name} {what}".strip() for name in names)), tuple(rows)), text_columns=1
    )


if __name__ == "__main__":
    try:
        typer.run(main)
    except CvnetError as error:
        sys.exit(str(error))
