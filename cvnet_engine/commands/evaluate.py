"""`eval`: mAP of the engine, optionally compared with the PyTorch reference or another bundle."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cvnet_engine import console
from cvnet_engine.benchmarks.accuracy import dataset as datasets
from cvnet_engine.benchmarks.accuracy.agreement import Agreement, compare
from cvnet_engine.benchmarks.accuracy.dataset import Dataset
from cvnet_engine.benchmarks.accuracy.evaluation import GLOBAL, Evaluation, Task, Timed
from cvnet_engine.benchmarks.accuracy.journal import Journal
from cvnet_engine.commands.subject import ClusterSubject, EngineSubject, ReferenceSubject, Subject
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.cluster import Cluster
from cvnet_engine.engine.errors import CvnetError, DatasetError, counted
from cvnet_engine.engine.geometry import IMAGE_SCALES, Scales, format_scales
from cvnet_engine.engine.presets import gallery_settings, named
from cvnet_engine.options import PYTORCH, EvalOptions, cluster_of
from cvnet_engine.pages.evaluation import AGAINST, ENGINE, REFERENCE, accuracy, agreement_table, evaluation_page
from cvnet_engine.pages.rendering import render

JOURNAL = "evaluation.sqlite"  # beside the shards of a gallery


def run(options: EvalOptions) -> None:
    cluster = cluster_of(options)
    if cluster and cluster.address and not options.gallery:
        raise CvnetError(
            f"--runner {options.runner} needs --gallery, in a folder that every machine of the cluster can read"
        )
    plan = named(options.preset).plan(1, None, options.rerank_with, options.rerank_full)
    shortlists = [plan.rerank] if options.rerank is None else parse_shortlists(options.rerank)
    bundle = Bundle(options.bundle)
    scales = gallery_settings(bundle.manifest, options.gallery, options.preset).scales
    dataset = datasets.load(options.data_dir, options.dataset, cropped=not options.uncropped)
    if options.distractors:
        dataset = dataset.with_distractors(datasets.read_distractors(options.distractors))
    console.say(
        f"{dataset.name}: {counted(len(dataset.images), 'database image')}, {counted(len(dataset.queries), 'query')}"
    )
    if plan.rerank_full is not None and plan.rerank_full < max(shortlists, default=0):
        console.warn(
            f"only {plan.rerank_full} of a shortlist are scored in full: not comparable with published figures"
        )
    if options.uncropped:
        console.warn("queries are whole images: not comparable with published figures")
    if scales != IMAGE_SCALES:
        console.warn(f"descriptors average scales {format_scales(scales)} only: not comparable with published figures")
    with kept_folder(options.gallery) as folder, Journal(folder / JOURNAL) as journal:
        task = Task(dataset, tuple(shortlists), method=plan.method, rerank_full=plan.rerank_full)
        with opened_subjects(options, bundle, folder, scales, cluster) as subjects:
            state_projections(subjects, task, journal)
            outcomes = {name: subject.evaluate(task, journal) for name, subject in subjects.items()}
    agreements = {name: compare(outcomes[ENGINE][0], outcomes[name][0]) for name in outcomes if name != ENGINE}
    show(outcomes, shortlists)
    show_agreements(agreements)
    console.warn_of_model(bundle.manifest)
    if options.json:
        console.write_json(options.json, to_json(options, task, scales, bundle, outcomes, agreements))
    if options.html:
        console.write_file(options.html, render(evaluation_page(dataset, bundle, outcomes, agreements, shortlists)))


def parse_shortlists(text: str) -> list[int]:
    """Parse shortlist lengths such as `100,400`; return them sorted, without 0 (no reranking).

    Raises:
        DatasetError: the text contains anything but whole numbers.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise DatasetError(f"--rerank {text!r}: expected shortlist lengths such as 100 or 100,400")
    return sorted({int(part) for part in parts} - {GLOBAL})


@contextlib.contextmanager
def kept_folder(path: Path | None) -> Iterator[Path]:
    """Yield the given folder, or a temporary one."""
    if path:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="cvnet-gallery-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def opened_subjects(
    options: EvalOptions, bundle: Bundle, folder: Path, scales: Scales, cluster: Cluster | None
) -> Iterator[dict[str, Subject]]:
    """Yield the engine and the models that it is compared with, by name."""

    def engines(bundle: Bundle, gallery: Path) -> EngineSubject:
        if cluster:
            return ClusterSubject(bundle, gallery, cluster, scales)
        return EngineSubject(bundle, gallery, options.threads, scales)

    with contextlib.ExitStack() as opened:
        subjects: dict[str, Subject] = {ENGINE: opened.enter_context(engines(bundle, folder))}
        if options.against == PYTORCH:
            subjects[REFERENCE] = opened.enter_context(ReferenceSubject(bundle, options.threads, scales))
        elif options.against:
            other = Bundle(Path(options.against))
            beside = folder / f"against-{other.manifest.features_id[-24:]}"
            subjects[AGAINST] = opened.enter_context(engines(other, beside))
        yield subjects


def state_projections(subjects: dict[str, Subject], task: Task, journal: Journal) -> None:
    """Print how much work is not in the journal yet, and how long it will take."""
    for name, subject in subjects.items():
        work, seconds = subject.projection(task, journal)
        if not work.images and not work.pairs:
            console.say(f"{name}: everything is in the journal")
            continue
        about = "" if seconds is None else f": about {console.duration(seconds)}"
        console.say(
            f"{name}: {counted(work.images, 'image')} to describe, up to {counted(work.pairs, 'pair')} to score{about}"
        )


def engine_evaluation(dataset: Dataset, bundle: Bundle, shortlists: list[int], gallery: Path) -> Timed:
    """Evaluate the engines of a bundle, reusing the features and pair scores stored in the gallery's folder."""
    with Journal(gallery / JOURNAL) as journal, EngineSubject(bundle, gallery, None) as engine:
        return engine.evaluate(Task(dataset, tuple(shortlists)), journal)


def reference_evaluation(dataset: Dataset, bundle: Bundle, shortlists: list[int]) -> Timed:
    """Evaluate the PyTorch model of a bundle."""
    with Journal(None) as journal, ReferenceSubject(bundle, None) as reference:
        return reference.evaluate(Task(dataset, tuple(shortlists)), journal)


def show(outcomes: dict[str, Timed], shortlists: list[int]) -> None:
    table = accuracy(outcomes, shortlists)
    console.table(table.title, table.columns, table.rows)
    for who, (evaluation, seconds) in outcomes.items():
        console.say(
            f"{who}: {counted(int(seconds['indexed']), 'database image')} {seconds['index']:.1f} s, "
            f"queries and {pairs(evaluation)} {seconds['queries']:.1f} s"
        )


def pairs(evaluation: Evaluation) -> str:
    coarse = f", {evaluation.pooled_pairs:,} at half resolution" if evaluation.pooled_pairs else ""
    return f"{counted(evaluation.pairs, 'pair')}{coarse}"


def show_agreements(agreements: dict[str, Agreement]) -> None:
    for name, agreement in agreements.items():
        table = agreement_table(name, agreement)
        console.say()
        console.table(table.title, table.columns, table.rows)
        console.say(
            f"pair scores differ by {agreement.largest_pair_difference:.1e} at most, "
            f"{agreement.mean_pair_difference:.1e} on average"
        )


def to_json(
    options: EvalOptions,
    task: Task,
    scales: Scales,
    bundle: Bundle,
    outcomes: dict[str, Timed],
    agreements: dict[str, Agreement],
) -> dict[str, Any]:
    dataset = task.dataset
    content = {
        "dataset": dataset.name,
        "bundle": str(options.bundle),
        **facts(bundle),
        "n": len(dataset.images),
        "nq": len(dataset.queries),
        "cropped": not options.uncropped,
        "rerank_with": task.method,
        "rerank_full": task.rerank_full,
        "scales": scales,
    }
    for who, (evaluation, seconds) in outcomes.items():
        results = evaluation.to_json() | {"seconds": seconds, "queries": per_query(dataset, evaluation)}
        if who == AGAINST and options.against:
            results = {"bundle": options.against, **facts(Bundle(Path(options.against)))} | results
        content |= results if who == ENGINE else {who: results}
    return content | {"agreement": {name: agreement.to_json() for name, agreement in agreements.items()}}


def facts(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "backend": manifest.backend,
        "precision": manifest.precision,
        "weights": manifest.weights,
        "trained": manifest.trained,
    }


def per_query(dataset: Dataset, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return each query's AP by shortlist length and setup, and its pair scores as [database row, score].

    `pairs` are at full resolution, `pooled_pairs` at coarse resolution.
    """
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
            "pooled_pairs": [[row, score] for row, score in query.coarse_scores.items()],
        }
        for path, query in zip(dataset.queries, evaluation.queries, strict=True)
    ]
