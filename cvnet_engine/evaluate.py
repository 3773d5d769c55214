"""`eval`: mAP of the engine, and of the PyTorch reference beside it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import dataset as datasets
from benchmarks.evaluation import GLOBAL, Evaluation, Selection, evaluate
from benchmarks.protocol import CUTOFFS, SETUPS
from cvnet_engine import console
from cvnet_engine.index import fill
from engine.bundle import Bundle
from engine.errors import BackendError, DatasetError, WeightsError
from engine.gallery import Gallery
from engine.indexing import IndexReport
from engine.retriever import Retriever

MEASURES = ("mAP", f"mP@{CUTOFFS[-1]}")
ACCURACY_COLUMNS = ("", *(f"{measure} {setup}" for measure in MEASURES for setup in SETUPS))

Timed = tuple[Evaluation, dict[str, float]]  # and the seconds of each stage


def run(
    name: str,
    data_dir: Path,
    bundle_path: Path,
    rerank: str,
    reference: bool,
    distractors: Path | None,
    gallery: Path | None,
    threads: int | None,
    json: Path | None,
) -> None:
    shortlists = parse_shortlists(rerank)
    bundle = Bundle(bundle_path)
    dataset = datasets.load(data_dir, name)
    if distractors:
        dataset = dataset.with_distractors(datasets.read_distractors(distractors))
    console.say(f"{name}: {len(dataset.images)} database images, {len(dataset.queries)} queries")
    outcomes = {"engine": engine_evaluation(dataset, bundle, shortlists, gallery, threads)}
    if reference:
        outcomes["reference"] = reference_evaluation(dataset, bundle, shortlists, threads)
    show(outcomes, shortlists)
    if not bundle.manifest.trained:
        console.warn_untrained()
    if json:
        console.write_json(json, to_json(name, bundle_path, bundle, dataset, outcomes))


def parse_shortlists(text: str) -> list[int]:
    """`100,400` as lengths in ascending order, none for `0`.

    Raises:
        DatasetError: anything but whole numbers.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise DatasetError(f"--rerank {text!r}: expected shortlist lengths such as 100 or 100,400")
    return sorted({int(part) for part in parts} - {GLOBAL})


def engine_evaluation(
    dataset: datasets.Dataset, bundle: Bundle, shortlists: list[int], gallery_path: Path | None, threads: int | None
) -> Timed:
    """The bundle's engines over a gallery of the database, at native image size."""
    with gallery_folder(gallery_path) as folder:
        started = time.perf_counter()
        report = IndexReport()
        fill([path.absolute() for path in dataset.images], bundle, folder, None, threads, report)
        if report.failed:
            path, reason = next(iter(report.failed.items()))
            raise DatasetError(f"{len(report.failed)} database images unreadable ({path}: {reason}); copy them again")
        gallery, retriever = Gallery(folder), Retriever.open(bundle, threads)
        indexed = time.perf_counter()
        with console.progress("evaluating the engine", len(dataset.queries)) as advance:
            collection = Selection.of_gallery(gallery, dataset.images)
            evaluation = evaluate(dataset, retriever, collection, shortlists, advance)
        seconds = {"index": indexed - started, "queries": time.perf_counter() - indexed}
        gallery.close()
        retriever.close()
    return evaluation, seconds


@contextlib.contextmanager
def gallery_folder(path: Path | None) -> Iterator[Path]:
    """The gallery that was named, or a temporary one."""
    if path:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="cvnet-gallery-") as folder:
        yield Path(folder)


def reference_evaluation(
    dataset: datasets.Dataset, bundle: Bundle, shortlists: list[int], threads: int | None
) -> Timed:
    """The PyTorch model over the same data set, candidate features kept."""
    retriever = open_reference(bundle, threads)
    from benchmarks.reference import ReferenceCollection

    started = time.perf_counter()
    with console.progress("describing with PyTorch", len(dataset.images)) as advance:
        collection = ReferenceCollection(dataset, retriever, advance)
    described = time.perf_counter()
    with console.progress("evaluating PyTorch", len(dataset.queries)) as advance:
        evaluation = evaluate(dataset, retriever, collection, shortlists, advance)
    return evaluation, {"index": described - started, "queries": time.perf_counter() - described}


def open_reference(bundle: Bundle, threads: int | None) -> Retriever:
    """The PyTorch model whose weights the bundle was built from.

    Raises:
        BackendError: PyTorch is not installed.
        WeightsError: the weights are gone, or are not what they were.
    """
    try:
        import torch

        from benchmarks.reference import reference
        from cvnet import checkpoint
    except ImportError as error:
        raise BackendError(
            f"--reference needs PyTorch ({error}); install the 'export' extra of cvnet-engine"
        ) from error
    if threads:
        torch.set_num_threads(threads)
    manifest = bundle.manifest
    model = checkpoint.load(manifest.weights, manifest.depth)
    if checkpoint.digest(model) != manifest.weights_digest:
        raise WeightsError(f"{manifest.weights}: changed since the bundle was built; build it again")
    return reference(model, "cuda" if torch.cuda.is_available() else "cpu")


def show(outcomes: dict[str, Timed], shortlists: list[int]) -> None:
    console.table("Accuracy, percent", ACCURACY_COLUMNS, accuracy_rows(outcomes, shortlists))
    for who, (evaluation, seconds) in outcomes.items():
        console.say(
            f"{who}: database {seconds['index']:.1f} s, queries and {evaluation.pairs} pairs {seconds['queries']:.1f} s"
        )


def accuracy_rows(outcomes: dict[str, Timed], shortlists: list[int]) -> list[list[str]]:
    """A row a method and shortlist length, `ACCURACY_COLUMNS` wide, in percent."""
    rows = []
    for who, (evaluation, _) in outcomes.items():
        for k in (GLOBAL, *shortlists):
            means = [evaluation.means(k, setup) for setup in SETUPS]
            cells = [percent(mean[measure]) for measure in MEASURES for mean in means]
            rows.append([f"{who}, {f'reranked {k}' if k else 'global'}", *cells])
    return rows


def percent(fraction: float) -> str:
    return "-" if fraction != fraction else f"{100 * fraction:.2f}"


def to_json(
    name: str, bundle_path: Path, bundle: Bundle, dataset: datasets.Dataset, outcomes: dict[str, Timed]
) -> dict[str, Any]:
    manifest = bundle.manifest
    content = {
        "dataset": name,
        "bundle": str(bundle_path),
        "backend": manifest.backend,
        "precision": manifest.precision,
        "weights": manifest.weights,
        "trained": manifest.trained,
        "n": len(dataset.images),
        "nq": len(dataset.queries),
    }
    for who, (evaluation, seconds) in outcomes.items():
        results = evaluation.to_json() | {"seconds": seconds, "queries": per_query(dataset, evaluation)}
        content |= results if who == "engine" else {who: results}
    return content


def per_query(dataset: datasets.Dataset, evaluation: Evaluation) -> list[dict[str, Any]]:
    """AP by shortlist length and setup, and the pairs scored: [database row, score]."""
    return [
        {
            "query": path.stem,
            "ap": {
                str(k): {
                    setup: result.ap for (length, setup), result in query.results.items() if length == k and result
                }
                for k in (GLOBAL, *evaluation.shortlists)
            },
            "pairs": [[row, score] for row, score in query.pair_scores.items()],
        }
        for path, query in zip(dataset.queries, evaluation.queries, strict=True)
    ]
