"""What SuperGlobal is worth beside CVNet, from the same weights: mAP of both descriptors, each reranked in every way.

`python -m benchmarks.accuracy.descriptors --data-dir DIR --dataset NAME --out OUT`. The engines and the PyTorch
reference each describe everything and score their own pairs. Maps do not depend on the descriptor, so each scores a
pair once, whichever rankings want it.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import typer
from rich.progress import track

from cvnet_engine.benchmarks import commands, tables
from cvnet_engine.benchmarks.accuracy import audit
from cvnet_engine.benchmarks.accuracy.database import Database
from cvnet_engine.benchmarks.accuracy.dataset import Dataset
from cvnet_engine.benchmarks.accuracy.evaluation import GLOBAL, Query, QueryWork, Task, extract_query
from cvnet_engine.benchmarks.accuracy.protocol import SETUPS, QueryResult
from cvnet_engine.benchmarks.accuracy.shortlists import Case
from cvnet_engine.benchmarks.commands import (
    DataDirOption,
    DepthOption,
    MaxSideOption,
    OutOption,
    ThreadsOption,
    WeightsOption,
)
from cvnet_engine.benchmarks.contenders.allocator import keep_memory
from cvnet_engine.benchmarks.contenders.reference import reference
from cvnet_engine.benchmarks.tables import Table
from cvnet_engine.cvnet import checkpoint
from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.graphs import DESCRIPTOR_NAMES
from cvnet_engine.engine.retrieval.retriever import Retriever
from cvnet_engine.engine.retrieval.searcher import RerankWith

SUBJECTS = ("engine", "PyTorch")
METHODS: tuple[RerankWith, ...] = get_args(RerankWith)
Figures = dict[str, dict[str, list[float]]]  # ranking -> setup -> AP of each query, percent


@contextlib.contextmanager
def opened(subject: str, model: CVNet, threads: int) -> Iterator[Retriever]:
    """The model as engines in fp32 or as it is."""
    with contextlib.ExitStack() as stack:
        if subject == "PyTorch":
            keep_memory()
            yield stack.enter_context(reference(model))
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            fp32 = audit.Precision("fp32")
            yield stack.enter_context(audit.open_retriever(fp32, model, [], folder, threads))


@dataclass(frozen=True)
class Outcome:
    """What came of one descriptor: descriptors (n, 2048) of database and queries, pair scores by query and row."""

    descriptors: Array
    pair_scores: list[dict[int, float]]
    figures: Figures

    def apart(self, other: Outcome) -> dict[str, float]:
        """The largest distances of a descriptor, of a pair score, and of a query's AP in points."""
        pairs = zip(self.pair_scores, other.pair_scores, strict=True)
        figures = [(aps, other.figures[ranking][s]) for ranking, by in self.figures.items() for s, aps in by.items()]
        return {
            "descriptor": float(np.linalg.norm(self.descriptors - other.descriptors, axis=1).max()),
            "pair_score": max(abs(ours[row] - theirs[row]) for ours, theirs in pairs for row in ours.keys() & theirs),
            "ap": max(float(np.abs(np.subtract(*both)).max()) for both in figures),
        }


def evaluated(dataset: Dataset, retriever: Retriever, shortlist: int, pair_scores: list[dict[int, float]]) -> Outcome:
    """One descriptor's rankings, judged.

    Args:
        pair_scores: of each query, database row -> pair score; what is missing is added.
    """
    images = track(dataset.images, f"{dataset.name}: images", transient=True)
    database = Database([retriever.extract_file(path) for path in images])
    truths = dataset.ground_truth
    queries = [extract_query(retriever, path, truth.bbx) for path, truth in zip(dataset.queries, truths, strict=True)]
    figures: Figures = {}
    descriptors = database.descriptors
    for method in METHODS:
        task = Task(dataset, (shortlist,), method=method)
        for number in track(task.queries, f"{dataset.name}: {method}", transient=True):
            features = queries[number]
            known = QueryWork(features.descriptor, pair_scores[number], {}, 0.0)
            query = Query(task, number, database, descriptors, known)
            pair_scores[number] = query.complete(retriever, features).pair_scores
            results = query.evaluation().results
            if method == METHODS[0]:
                add(figures, "global", results, GLOBAL)
            add(figures, method, results, shortlist)
    described = np.stack([features.descriptor for features in (*database.described, *queries)])
    return Outcome(described, [dict(scores) for scores in pair_scores], figures)


def add(figures: Figures, name: str, results: Mapping[Case, QueryResult | None], shortlist: int) -> None:
    """Note a query's AP, in percent, in each setup that has a relevant image for it."""
    for setup in SETUPS:
        if result := results[shortlist, setup]:
            figures.setdefault(name, {}).setdefault(setup, []).append(100 * result.ap)


def table(subjects: dict[str, dict[str, Figures]]) -> Table:
    """mAP in percent: a row a descriptor and ranking, a column a subject and setup."""
    columns = [f"{subject} {setup}" for subject in subjects for setup in SETUPS]
    rows = [
        (
            DESCRIPTOR_NAMES[descriptor],
            ranking,
            *(mean(s, descriptor, ranking, setup) for s in subjects.values() for setup in SETUPS),
        )
        for descriptor, figures in subjects[SUBJECTS[0]].items()
        for ranking in figures
    ]
    return Table("", ("descriptor", "ranking", *columns), tuple(rows))


def mean(subject: dict[str, Figures], descriptor: str, ranking: str, setup: str) -> str:
    """Empty where the subject has not come to that descriptor."""
    return f"{np.mean(subject[descriptor][ranking][setup]):.4f}" if descriptor in subject else ""


def main(
    data_dir: DataDirOption,
    dataset: Annotated[str, typer.Option(help="Name of a data set, or of generated scenes: demo, test.")],
    out: OutOption,
    rerank: Annotated[int, typer.Option(min=1, help="Candidates to rerank.")] = 20,
    weights: WeightsOption = "demo",
    depth: DepthOption = 50,
    max_side: MaxSideOption = None,
    threads: ThreadsOption = 2,
) -> None:
    """mAP of both descriptors, global and reranked in every way, by the engines and by PyTorch."""
    report: dict[str, Any] = {
        **commands.head("benchmarks.accuracy.descriptors"),
        "dataset": dataset,
        "weights": weights,
        "rerank": rerank,
        "max_side_px": max_side,
        "agreement": {},
        "subjects": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        loaded = audit.prepared(dataset, data_dir, max_side, Path(scratch))
        report |= {"n": len(loaded.images), "nq": len(loaded.queries)}
        first: dict[str, Outcome] = {}
        for subject in SUBJECTS:
            pair_scores: list[dict[int, float]] = [{} for _ in loaded.queries]
            for descriptor in DESCRIPTOR_NAMES:
                model = checkpoint.load(weights, depth, descriptor=descriptor)
                with opened(subject, model, threads) as retriever:
                    outcome = evaluated(loaded, retriever, rerank, pair_scores)
                report["subjects"].setdefault(subject, {})[descriptor] = outcome.figures
                if descriptor in first:
                    report["agreement"][descriptor] = outcome.apart(first[descriptor])
                first.setdefault(descriptor, outcome)
                write(report, out)
    sys.stdout.write(commands.beside(out, ".md").read_text())


def write(report: dict[str, Any], out: Path) -> None:
    """The report so far, as JSON and as a table."""
    lines = [commands.head_line(report), ""]
    markdown = "\n".join([*lines, tables.markdown(table(report["subjects"]))])
    commands.write(out, report, markdown)


if __name__ == "__main__":
    with commands.told_in_a_line():
        typer.run(main)
