"""Regression of full-resolution pair scores on coarse ones: `python -m training.mixing DATA_DIR`.

The line is fitted by least squares to the best 100 candidates of every query of the validation scenes, without labels.
`engine.retrieval.ranking.COARSE_WEIGHT` is `RERANK_WEIGHT` times its slope, so that a ranking by coarse scores is a
ranking by expected final scores.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import scenes
from benchmarks.lab import harness
from benchmarks.lab.harness import DepthOption, ThreadsOption, WeightsOption
from benchmarks.lab.subject import open_engines
from cvnet_engine.benchmarks.accuracy.databases import Database
from cvnet_engine.benchmarks.accuracy.dataset import Dataset, load
from cvnet_engine.benchmarks.accuracy.evaluation import extract_query
from cvnet_engine.cvnet import checkpoint
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.gallery.map_codecs import HalfCodec
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.engine.retrieval.pooling import Pooled, pooled
from cvnet_engine.engine.retrieval.ranking import RERANK_WEIGHT
from cvnet_engine.engine.retrieval.search import similarities

SHORTLIST = 100


def main(
    data_dir: Annotated[Path, typer.Argument(help="Folder of data sets; missing scenes are generated in it.")],
    weights: WeightsOption = "demo",
    depth: DepthOption = 50,
    threads: ThreadsOption = 2,
) -> None:
    """Print slope, intercept and correlation of the line, and the weight."""
    scenes.write(scenes.VALIDATION, data_dir)
    with (
        tempfile.TemporaryDirectory() as graphs,
        open_engines(checkpoint.load(weights, depth), "fp32", [], Path(graphs), threads) as engines,
    ):
        coarse, full = pair_scores(load(data_dir, scenes.VALIDATION.name), engines)
    slope, intercept = np.polyfit(coarse, full, 1)
    correlation = np.corrcoef(coarse, full)[0, 1]
    sys.stdout.write(f"full = {slope:.3f} coarse + {intercept:.3f}, correlation {correlation:.3f}, {len(full)} pairs\n")
    sys.stdout.write(f"weight {RERANK_WEIGHT * slope:.3f}\n")


def pair_scores(dataset: Dataset, engines: Engines) -> tuple[Array, Array]:
    """Return the pair scores (pairs,) of all shortlists at coarse and at full resolution."""
    database = Database.as_kept([engines.extract_from(path) for path in dataset.images], HalfCodec())
    coarse, full = [], []
    for path, truth in zip(dataset.queries, dataset.ground_truth, strict=True):
        query = extract_query(engines, path, truth.bbx)
        rows = np.argsort(-similarities(database.descriptors, query.descriptor))[:SHORTLIST].tolist()
        coarse.append(engines.score_rows(pooled(query), Pooled(database), rows))
        full.append(engines.score_rows(query, database, rows))
    return np.concatenate(coarse), np.concatenate(full)


if __name__ == "__main__":
    with harness.errors_as_one_line():
        typer.run(main)
