"""`eval`: mAP of the engine, and of the PyTorch reference or another bundle beside it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvnet_engine import console
from cvnet_engine.benchmarks.accuracy import dataset as datasets
from cvnet_engine.benchmarks.accuracy.agreement import Agreement, compare
from cvnet_engine.benchmarks.accuracy.dataset import Dataset
from cvnet_engine.benchmarks.accuracy.evaluation import GLOBAL, Evaluation, Task, Timed
from cvnet_engine.benchmarks.accuracy.journal import Journal
from cvnet_engine.commands.index import scales_for
from cvnet_engine.commands.subject import ClusterSubject, EngineSubject, ReferenceSubject, Subject
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.cluster import Cluster
from cvnet_engine.engine.errors import CvnetError, DatasetError
from cvnet_engine.engine.geometry import IMAGE_SCALES
from cvnet_engine.engine.retrieval.searcher import RerankWith
from cvnet_engine.engine.scales import Scales, shown
from cvnet_engine.outputs import Files
from cvnet_engine.pages.evaluation import AGAINST, ENGINE, REFERENCE, accuracy, agreement_table, evaluation_page
from cvnet_engine.pages.rendering import render

JOURNAL = "evaluation.sqlite"  # beside the shards of a gallery


@dataclass(frozen=True)
class Options:
    """What to evaluate.

    Attributes:
        rerank: shortlist lengths, as in `100,400`.
        rerank_with: what the shortlist is reranked with; see `Plan`.
        fine: candidates of a shortlist to score in full; see `Plan`.
        scales: that images are described at, as in `0.7071,1`; None for those of the gallery, all where it is new.
        reference: evaluate the PyTorch model too.
        against: evaluate this bundle too.
        distractors: a text file of further database images.
        gallery: where features and pair scores are kept, None for a temporary place.
        cropped: crop queries to their boxes, as published.
        cluster: whose processes do the engines' work; None for this one alone.
    """

    dataset: str
    data_dir: Path
    bundle: Path
    rerank: str
    rerank_with: RerankWith
    fine: int | None
    scales: str | None
    reference: bool
    against: Path | None
    distractors: Path | None
    gallery: Path | None
    cropped: bool
    threads: int | None
    html: Path | None
    json: Path | None
    cluster: Cluster | None = None

    @property
    def files(self) -> Files:
        truths = [self.data_dir / self.dataset / f"gnd_{self.dataset}{suffix}" for suffix in (".pkl", ".json")]
        written = {"--html": self.html, "--json": self.json}
        return Files(written, [*truths, self.distractors], [self.bundle, self.against, self.gallery])


def run(options: Options) -> None:
    options.files.require_apart()
    if options.cluster and options.cluster.address and not options.gallery:
        raise CvnetError("--address needs --gallery, in a folder that every machine of the cluster sees")
    shortlists, scales = parse_shortlists(options.rerank), scales_for(options.scales, options.gallery)
    bundle = Bundle(options.bundle)
    dataset = datasets.load(options.data_dir, options.dataset)
    if options.distractors:
        dataset = dataset.with_distractors(datasets.read_distractors(options.distractors))
    console.say(f"{dataset.name}: {len(dataset.images)} database images, {len(dataset.queries)} queries")
    if options.fine is not None and options.fine < max(shortlists, default=0):
        console.warn(f"{options.fine} of a shortlist are scored in full: figures do not compare with published ones")
    if scales != IMAGE_SCALES:
        console.warn(f"images are described at scales {shown(scales)}: figures do not compare with published ones")
    if not options.cropped:
        console.warn("queries are not cropped to their boxes: figures do not compare with published ones")
    with kept_folder(options.gallery) as folder, Journal(folder / JOURNAL) as journal:
        task = Task(dataset, tuple(shortlists), options.cropped, options.rerank_with, options.fine)
        with opened_subjects(options, bundle, folder, scales) as subjects:
            state_projections(subjects, task, journal)
            outcomes = {name: subject.evaluate(task, journal) for name, subject in subjects.items()}
    agreements = {name: compare(outcomes[ENGINE][0], outcomes[name][0]) for name in outcomes if name != ENGINE}
    show(outcomes, shortlists)
    show_agreements(agreements)
    console.warn_of_model(bundle.manifest)
    if options.json:
        console.write_json(options.json, to_json(options, bundle, dataset, outcomes, agreements))
    if options.html:
        console.write_file(options.html, render(evaluation_page(dataset, bundle, outcomes, agreements, shortlists)))


def parse_shortlists(text: str) -> list[int]:
    """`100,400` as lengths in ascending order, none for `0`.

    Raises:
        DatasetError: anything but whole numbers.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise DatasetError(f"--rerank {text!r}: expected shortlist lengths such as 100 or 100,400")
    return sorted({int(part) for part in parts} - {GLOBAL})


@contextlib.contextmanager
def kept_folder(path: Path | None) -> Iterator[Path]:
    """The gallery that was named, or a temporary one."""
    if path:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="cvnet-gallery-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def opened_subjects(options: Options, bundle: Bundle, folder: Path, scales: Scales) -> Iterator[dict[str, Subject]]:
    """The engine, and what it is held against."""

    def engines(bundle: Bundle, gallery: Path) -> EngineSubject:
        if options.cluster:
            return ClusterSubject(bundle, gallery, options.cluster, scales)
        return EngineSubject(bundle, gallery, options.threads, scales)

    with contextlib.ExitStack() as opened:
        subjects: dict[str, Subject] = {ENGINE: opened.enter_context(engines(bundle, folder))}
        if options.reference:
            subjects[REFERENCE] = opened.enter_context(ReferenceSubject(bundle, options.threads, scales))
        if options.against:
            other = Bundle(options.against)
            beside = folder / f"against-{other.manifest.features_id[-24:]}"
            subjects[AGAINST] = opened.enter_context(engines(other, beside))
        yield subjects


def state_projections(subjects: dict[str, Subject], task: Task, journal: Journal) -> None:
    """Say how long everything that is not in the journal will take."""
    for name, subject in subjects.items():
        work, seconds = subject.projection(task, journal)
        if not work.images and not work.pairs:
            console.say(f"{name}: everything is in the journal")
            continue
        about = "" if seconds is None else f": about {console.duration(seconds)}"
        console.say(f"{name}: {work.images} images to describe, {work.pairs} pairs to score at most{about}")


def engine_evaluation(
    dataset: Dataset, bundle: Bundle, shortlists: list[int], gallery: Path | None, threads: int | None
) -> Timed:
    """The bundle's engines over a gallery of the database, at native image size."""
    with (
        kept_folder(gallery) as folder,
        Journal(folder / JOURNAL) as journal,
        EngineSubject(bundle, folder, threads) as engine,
    ):
        return engine.evaluate(Task(dataset, tuple(shortlists)), journal)


def reference_evaluation(dataset: Dataset, bundle: Bundle, shortlists: list[int], threads: int | None) -> Timed:
    """The PyTorch model over the same data set, candidate features kept."""
    with Journal(None) as journal, ReferenceSubject(bundle, threads) as reference:
        return reference.evaluate(Task(dataset, tuple(shortlists)), journal)


def show(outcomes: dict[str, Timed], shortlists: list[int]) -> None:
    table = accuracy(outcomes, shortlists)
    console.table(table.title, table.columns, table.rows)
    for who, (evaluation, seconds) in outcomes.items():
        console.say(
            f"{who}: {seconds['indexed']} database images {seconds['index']:.1f} s, "
            f"queries and {pairs(evaluation)} {seconds['queries']:.1f} s"
        )


def pairs(evaluation: Evaluation) -> str:
    rough = f", {evaluation.pooled_pairs} on pooled maps" if evaluation.pooled_pairs else ""
    return f"{evaluation.pairs} pairs{rough}"


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
    options: Options, bundle: Bundle, dataset: Dataset, outcomes: dict[str, Timed], agreements: dict[str, Agreement]
) -> dict[str, Any]:
    content = {
        "dataset": dataset.name,
        "bundle": str(options.bundle),
        **facts(bundle),
        "n": len(dataset.images),
        "nq": len(dataset.queries),
        "cropped": options.cropped,
        "rerank_with": options.rerank_with,
        "fine": options.fine,
        "scales": scales_for(options.scales, options.gallery),
    }
    for who, (evaluation, seconds) in outcomes.items():
        results = evaluation.to_json() | {"seconds": seconds, "queries": per_query(dataset, evaluation)}
        if who == AGAINST and options.against:
            results = {"bundle": str(options.against), **facts(Bundle(options.against))} | results
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
    """AP by shortlist length and setup, and the pairs scored, in full and on pooled maps: [database row, score]."""
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
            "pooled_pairs": [[row, score] for row, score in query.pooled_scores.items()],
        }
        for path, query in zip(dataset.queries, evaluation.queries, strict=True)
    ]
